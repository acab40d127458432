//! The pure core of a Cortado node: home, mapper bookkeeping, replication, handoff. No I/O, no clock.
