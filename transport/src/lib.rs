//! QUIC endpoints, certificates and framing shared by Cortado nodes and clients.
