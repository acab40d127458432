//! Write-ahead log of a Cortado node behind a storage trait that tests can crash.
