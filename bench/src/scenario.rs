//! Scenarios with a verdict: size, restart, stalls. Each prints its figures and fails if a limit
//! that Holdfast promises is broken.

pub mod join;
pub mod restart;
pub mod size;
pub mod stall;

/// Bytes as mebibytes, for people.
fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}
