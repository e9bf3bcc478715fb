//! Tests of the hub against a naive store: rules one by one, a model under random schedules, cost.

mod cost;
mod model;
mod races;
mod rules;
mod slow;
mod world;
