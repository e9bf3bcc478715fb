//! What a node does, as those see it who run one: whole members, mostly several in one process.
//!
//! One program: each would take the compiler as long again for the consensus library.

mod apart;
mod cluster;
mod discovery;
mod divergence;
mod founding;
mod leases;
mod members;
mod restart;
mod space;
mod threads;
mod world;
