//! Histories of what clients saw, and their judge; shared by the harness over real processes and by
//! the simulation.

pub mod checker;
pub mod history;
