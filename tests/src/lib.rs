//! End-to-end, simulation and fault tests of Cortado.
