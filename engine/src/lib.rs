//! What is computed: schema, CSV decoding, plan, operators, ledger folds, receipt. No I/O.
