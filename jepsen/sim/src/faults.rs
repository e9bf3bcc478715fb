//! What goes wrong, and when; everything is chosen from the run's seed.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{MEMBERS, World};

/// Faults of one run.
const CHAOS_ROUNDS: u64 = 8;
const POWER_CUTS: u64 = 5;

/// Crashes and partitions, several at once; everything is left as it is at the end.
pub async fn chaos(world: &Rc<World>) -> anyhow::Result<()> {
    for _ in 0..CHAOS_ROUNDS {
        pause(world, 100, 3_000).await;
        world.check()?;
        match world.choose(4) {
            0 => crash_some(world).await,
            1 => partition(world),
            2 => {
                partition(world);
                crash_some(world).await;
            }
            _ => {
                world.trace.note(format_args!("{} heal", world.now()));
                world.network.heal();
            }
        }
        restart_some(world);
    }
    Ok(())
}

/// All members lose power in the same moment, again and again.
pub async fn power_cuts(world: &Rc<World>) -> anyhow::Result<()> {
    for _ in 0..POWER_CUTS {
        pause(world, 300, 2_500).await;
        world.check()?;
        (0..MEMBERS).for_each(|index| world.crash(index));
        pause(world, 1, 500).await;
        (0..MEMBERS).for_each(|index| world.start(index));
        world.wait_for_all().await?;
    }
    Ok(())
}

/// Ends all faults.
pub fn heal(world: &Rc<World>) {
    world.trace.note(format_args!("{} everything heals", world.now()));
    world.network.heal();
    (0..MEMBERS).filter(|index| !world.is_up(*index)).for_each(|index| world.start(index));
}

async fn crash_some(world: &World) {
    let first = world.leader().filter(|_| world.choose(2) == 0);
    let first = first.unwrap_or_else(|| choose_member(world));
    let count = 1 + usize::try_from(world.choose(MEMBERS as u64)).expect("below three");
    for step in 0..count {
        world.crash((first + step) % MEMBERS);
        pause(world, 0, 20).await;
    }
}

fn restart_some(world: &Rc<World>) {
    for index in 0..MEMBERS {
        if !world.is_up(index) && world.choose(3) > 0 {
            world.start(index);
        }
    }
}

fn partition(world: &World) {
    let one = world.leader().filter(|_| world.choose(2) == 0);
    let one = one.unwrap_or_else(|| choose_member(world));
    let (two, three) = ((one + 1) % MEMBERS, (one + 2) % MEMBERS);
    let cuts = match world.choose(4) {
        // One alone.
        0 => vec![(one, two), (two, one), (one, three), (three, one)],
        // A bridge: one and two see each other only through three.
        1 => vec![(one, two), (two, one)],
        // One hears nobody.
        2 => vec![(two, one), (three, one)],
        // Nobody hears one.
        _ => vec![(one, two), (one, three)],
    };
    world.trace.note(format_args!("{} cut {cuts:?}", world.now()));
    world.network.heal();
    for (from, to) in cuts {
        world.network.cut(from, to);
    }
}

fn choose_member(world: &World) -> usize {
    usize::try_from(world.choose(MEMBERS as u64)).expect("below three")
}

async fn pause(world: &World, from: u64, to: u64) {
    let milliseconds = from + world.choose(to - from);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
