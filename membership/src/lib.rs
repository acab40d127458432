//! Who is here, who is down, who leads and who owns what: SWIM, rendezvous ring, Bully. No I/O, no clock.
