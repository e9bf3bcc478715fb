//! Members that are told with whom they found their cluster: none of them founds another, wherever it
//! stops on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use holdfast_raft::identity::{cluster_id, member_id};
use holdfast_raft::{Discover, InitialCluster, OpenError};
use holdfast_store::files::MemoryFiles;
use holdfast_store::files::memory::Unsynced;

use crate::world::{World, put_on, within};

/// Says who founds the cluster, or why nobody does, and counts how often it is asked.
struct Registry {
    answer: Result<InitialCluster, String>,
    asked: AtomicUsize,
}

impl Registry {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Discover for Registry {
    fn what(&self) -> &'static str {
        "registry"
    }

    fn discover(&self) -> BoxFuture<'static, Result<InitialCluster, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.clone();
        Box::pin(async move { answer })
    }
}

/// Members whose flags name nobody but themselves, and their registry.
fn world(members: usize) -> (World, Arc<Registry>) {
    let mut world = World::new(members);
    let cluster = world.configs[0].initial_cluster.clone();
    for config in &mut world.configs {
        config.initial_cluster.retain(|(name, _)| *name == config.name);
    }
    let registry = Arc::new(Registry { answer: Ok(cluster), asked: AtomicUsize::new(0) });
    world.discover = Some(registry.clone());
    (world, registry)
}

/// The id of the cluster that all of them found.
fn expected(world: &World) -> u64 {
    let ids = world.configs.iter().map(|config| {
        member_id(&config.initial_advertise_peer_urls, &config.initial_cluster_token)
    });
    cluster_id(&ids.collect::<Vec<_>>())
}

#[tokio::test(start_paused = true)]
async fn members_found_the_cluster_that_they_are_told_of_once() {
    let (mut world, registry) = world(3);
    world.start_all().await;
    assert_eq!(registry.asked(), 3);
    for i in 0..3 {
        assert_eq!(world.node(i).identity().cluster_id, expected(&world));
    }
    put_on(&world.port(0), "k", "v").await.expect("three of three");
    world.crash(1).await;
    world.start_ready(1).await;
    assert_eq!(registry.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn nobody_starts_who_is_not_let_in() {
    let (mut world, _) = world(1);
    let registry = Registry { answer: Err("full".to_owned()), asked: AtomicUsize::new(0) };
    world.discover = Some(Arc::new(registry));
    let refused = world.start(0).await.expect_err("refused");
    assert!(matches!(&refused, OpenError::Discovery(reason) if reason == "full"), "{refused}");
}

/// A registry that never answers.
#[derive(Default)]
struct Silent(AtomicUsize);

impl Discover for Silent {
    fn what(&self) -> &'static str {
        "registry"
    }

    fn discover(&self) -> BoxFuture<'static, Result<InitialCluster, String>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

/// One of three that stopped between its identity and the founding; none if a stop after so many
/// operations is none there.
async fn stopped_before_the_founding(count: u64) -> Option<World> {
    let files = MemoryFiles::new();
    let (mut world, _) = world(3);
    world.files[0] = Arc::new(files.clone());
    files.power_off_after(count);
    let _ = starts(&mut world).await;
    files.crash(Unsynced::Lost, &mut |_| 0);
    files.contents("/m0/identity".as_ref()).is_ok().then_some(world)
}

/// A registry that knows nobody any more.
fn refusing() -> Arc<Registry> {
    let answer = Err("no such host".to_owned());
    Arc::new(Registry { answer, asked: AtomicUsize::new(0) })
}

/// Alone of three, so that it founds the cluster and gets no further.
async fn starts(world: &mut World) -> bool {
    let started = world.start(0).await.is_ok();
    if started {
        world.crash(0).await;
    }
    started
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_while_it_is_founded_changes_no_cluster() {
    let files = MemoryFiles::new();
    let (mut whole, _) = world(3);
    whole.files[0] = Arc::new(files.clone());
    assert!(starts(&mut whole).await);
    let mut seed = 1u64;
    let mut asked_again = 0;
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Prefix, Unsynced::Torn] {
        for count in 0..=files.operations() {
            let files = MemoryFiles::new();
            let (mut world, registry) = world(3);
            world.files[0] = Arc::new(files.clone());
            files.power_off_after(count);
            let _ = starts(&mut world).await;
            files.crash(unsynced, &mut |below| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (seed >> 33) % below
            });
            let before = registry.asked();
            let identified = files.contents("/m0/identity".as_ref()).is_ok();
            world.start(0).await.unwrap_or_else(|error| panic!("{unsynced:?} {count}: {error}"));
            assert_eq!(world.node(0).identity().cluster_id, expected(&world));
            asked_again += usize::from(identified && registry.asked() > before);
            world.start(1).await.expect("starts");
            for i in 0..2 {
                within(60, world.node(i).wait_ready()).await;
            }
            put_on(&world.port(0), "k", "v").await.expect("two of three");
        }
    }
    assert!(asked_again > 0, "no cut between the identity and the founding");
}

#[tokio::test(start_paused = true)]
async fn whoever_stopped_before_the_founding_is_brought_in_without_a_registry() {
    let files = MemoryFiles::new();
    let (mut whole, _) = world(3);
    whole.files[0] = Arc::new(files.clone());
    assert!(starts(&mut whole).await);
    let mut asked = 0;
    for count in 0..=files.operations() {
        for refuses in [false, true] {
            let Some(mut world) = stopped_before_the_founding(count).await else { continue };
            for i in 1..3 {
                world.start(i).await.expect("starts");
            }
            put_on(&world.port(1), "k", "v").await.expect("two of three");
            let (silent, refusing) = (Arc::new(Silent::default()), refusing());
            world.discover =
                Some(if refuses { refusing.clone() } else { silent.clone() as Arc<dyn Discover> });
            within(60, world.start_ready(0)).await;
            put_on(&world.port(0), "k", "v").await.expect("three of three");
            asked += silent.0.load(Ordering::Relaxed) + refusing.asked();
        }
    }
    assert!(asked > 0, "no cut between the identity and the founding");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_by_nobody_does_not_start() {
    let files = MemoryFiles::new();
    let (mut whole, _) = world(3);
    whole.files[0] = Arc::new(files.clone());
    assert!(starts(&mut whole).await);
    let mut refused = 0;
    for count in 0..=files.operations() {
        let Some(mut world) = stopped_before_the_founding(count).await else { continue };
        world.discover = Some(refusing());
        match within(60, world.start(0)).await {
            Ok(()) => {}
            Err(OpenError::Discovery(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "no cut between the identity and the founding");
}
