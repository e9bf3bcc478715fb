use super::*;
use crate::Revision;
use crate::files::MemoryFiles;
use crate::files::memory::Unsynced;
use crate::maintain::Taken;
use crate::testing::{Headers, Small, files, options};

fn receiver(files: &MemoryFiles) -> Small {
    Small::open(crate::Options { incarnation: 8, ..options(files) }).unwrap()
}

fn sender(index: u64) -> Small {
    let mut store = Small::open(options(&files())).unwrap();
    store.apply(index, 90);
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    store
}

/// Sends in small pieces, at most `pieces` of them; gives how many bytes went over.
fn send(export: &Export, receiving: &mut Receiving, mut pieces: usize) -> u64 {
    let mut sent = 0;
    for file in receiving.missing() {
        let mut at = file.offset;
        while at < file.length && pieces > 0 {
            let bytes = export.read(&file.name, at, 700).unwrap();
            receiving.write(&file.name, at, &bytes).unwrap();
            at += bytes.len() as u64;
            sent += bytes.len() as u64;
            pieces -= 1;
        }
    }
    sent
}

fn install(to: &mut Small, received: ReceivedCheckpoint) {
    let mut headers = Headers::default();
    received.headers(&mut headers).unwrap();
    to.applied = received.info().position.index;
    to.records.install(received).unwrap();
    let read = |header: &crate::RecordHeader| to.records.read(header.revision).unwrap();
    to.expected = headers.0.iter().map(|header| (header.revision, read(header))).collect();
}

#[test]
fn a_checkpoint_arrives_in_pieces_and_survives_a_power_cut() {
    let mut from = sender(150);
    let here = files();
    let mut to = receiver(&here);
    to.apply(20, 50);
    to.take().unwrap();
    to.settle().unwrap();
    let export = from.maintainer.export().unwrap();

    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    let first = send(&export, &mut receiving, 7);
    assert_eq!(first, 7 * 700);
    let incomplete = receiving.finish().err().unwrap();
    assert!(matches!(incomplete, ReceiveError::Incomplete { .. }));
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    let total: u64 = export.files().iter().map(|file| file.length).sum();
    assert_eq!(first + send(&export, &mut receiving, usize::MAX), total);
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(to.expected, from.expected);
    to.check();
    here.crash(Unsynced::Lost, &mut |_| unreachable!("nothing to choose"));

    let mut to = receiver(&here);
    assert_eq!(to.expected, from.expected);
    to.apply(300, 90);
    to.take().unwrap();
    to.settle().unwrap();
    to.check();

    // An attempt that is never finished leaves nothing behind once another begins.
    let elsewhere = files();
    let mut other = Small::open(crate::Options { incarnation: 9, ..options(&elsewhere) }).unwrap();
    other.apply(90, 90);
    other.take().unwrap();
    let abandoned = other.maintainer.export().unwrap();
    drop(to.maintainer.receive(abandoned.manifest().clone()).unwrap());
    let partial =
        || here.paths().iter().filter(|path| path.to_string_lossy().ends_with(".part")).count();
    assert_eq!(partial(), abandoned.files().len());

    // A later checkpoint of the same sender: only what it wrote since is sent.
    from.apply(350, 90);
    from.take().unwrap();
    let export = from.maintainer.export().unwrap();
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    let sent = send(&export, &mut receiving, usize::MAX);
    let all: u64 = export.files().iter().map(|file| file.length).sum();
    assert_eq!(sent, all - total);
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(partial(), 0);
    assert_eq!(to.expected, from.expected);
    to.apply(400, 90);
    to.settle().unwrap();
    to.take().unwrap();
    to.settle().unwrap();
    to.check();
    drop(to);
    receiver(&here).check();
}

#[test]
fn damage_on_the_way_is_noticed_and_the_file_sent_anew() {
    let from = sender(60);
    let to = receiver(&files());
    let export = from.maintainer.export().unwrap();
    let checkpoints = to.maintainer.checkpoints();
    let mut receiving = checkpoints.receive(export.manifest().clone()).unwrap();
    let victim = receiving.missing()[0].clone();
    let bytes = export.read(&victim.name, 0, 100).unwrap();
    let mut wrong = bytes.to_vec();
    wrong[50] ^= 1;
    receiving.write(&victim.name, 0, &wrong).unwrap();
    let out_of_order = receiving.write(&victim.name, 500, &bytes).err().unwrap();
    assert!(matches!(out_of_order, ReceiveError::OutOfOrder { expected: 100, .. }));
    send(&export, &mut receiving, usize::MAX);
    match receiving.finish().err().unwrap() {
        ReceiveError::Damaged { name } => assert_eq!(name, victim.name),
        other => panic!("{other}"),
    }
    let mut receiving = checkpoints.receive(export.manifest().clone()).unwrap();
    assert_eq!(receiving.missing()[0].offset, 0);
    send(&export, &mut receiving, usize::MAX);
    let mut to = to;
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(to.expected, from.expected);

    let mut manifest = export.manifest().to_vec();
    manifest[30] ^= 1;
    let error = checkpoints.receive(Bytes::from(manifest)).err().unwrap();
    assert!(matches!(error, ReceiveError::Manifest(_)));
}

#[test]
fn an_export_pins_its_files_through_compaction() {
    let mut from = sender(200);
    let export = from.maintainer.export().unwrap();
    let expected = from.expected.clone();
    from.compact(|main| main < 190);
    from.settle().unwrap();
    for _ in 0..4 {
        from.apply(from.applied + 20, 90);
        from.take().unwrap();
        from.settle().unwrap();
    }
    let mut to = receiver(&files());
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    send(&export, &mut receiving, usize::MAX);
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(to.expected, expected);
    let before = from.records.total_bytes();
    drop(export);
    from.settle().unwrap();
    assert!(from.records.total_bytes() < before / 2);
}

#[test]
fn a_checkpoint_that_is_not_installed_leaves_nothing_in_force() {
    let from = sender(60);
    let here = files();
    let mut to = receiver(&here);
    to.apply(10, 50);
    to.take().unwrap();
    let export = from.maintainer.export().unwrap();
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    send(&export, &mut receiving, usize::MAX);
    drop(receiving.finish().unwrap());
    to.settle().unwrap();
    to.check();
    assert_eq!(to.records.read_if_present(Revision::new(40, 0)).unwrap(), None);
    let expected = to.expected.clone();
    drop(to);
    assert_eq!(receiver(&here).expected, expected);
}

/// A file of this member's own has rotted, and comes back from a peer while it is still being
/// appended to.
#[test]
fn a_received_file_in_the_place_of_the_current_one_is_not_appended_to() {
    let here = files();
    let mut ours = receiver(&here);
    ours.apply(40, 90);
    ours.take().unwrap();
    let elsewhere = files();
    let mut peer = Small::open(crate::Options { incarnation: 9, ..options(&elsewhere) }).unwrap();
    let copy = |from: &Small, to: &mut Small| {
        let export = from.maintainer.export().unwrap();
        let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
        send(&export, &mut receiving, usize::MAX);
        install(to, receiving.finish().unwrap());
        export.files()[0].name.clone()
    };
    copy(&ours, &mut peer);
    let last = ours.maintainer.export().unwrap().files().last().unwrap().name.clone();
    peer.apply(60, 90);
    peer.take().unwrap();
    here.flip(&std::path::Path::new("/data/blocks").join(last), 200, 1).unwrap();
    copy(&peer, &mut ours);
    ours.apply(70, 90);
    assert!(matches!(ours.take().unwrap(), Taken::Manifest(_)));
    ours.check();
    let expected = ours.expected.clone();
    drop(ours);
    let ours = receiver(&here);
    assert_eq!(ours.expected, expected);
    ours.check();
}

/// The answer to an installation may be lost, and then the same checkpoint is sent again.
#[test]
fn a_checkpoint_that_is_received_again_stays_in_force() {
    let from = sender(60);
    let here = files();
    let mut to = receiver(&here);
    let export = from.maintainer.export().unwrap();
    let again = |to: &mut Small| to.maintainer.receive(export.manifest().clone()).unwrap();
    let mut receiving = again(&mut to);
    send(&export, &mut receiving, usize::MAX);
    let first = receiving.finish().unwrap();
    let second = again(&mut to).finish();
    assert!(matches!(second, Err(ReceiveError::Superfluous { .. })), "the first one is pending");
    install(&mut to, first);
    let third = again(&mut to).finish();
    assert!(matches!(third, Err(ReceiveError::Superfluous { .. })), "the first one is in force");
    let expected = to.expected.clone();
    drop(to);
    here.crash(Unsynced::Lost, &mut |_| unreachable!("nothing to choose"));
    assert_eq!(receiver(&here).expected, expected);
}

#[test]
fn a_checkpoint_that_was_given_up_can_be_received_again() {
    let from = sender(60);
    let mut to = receiver(&files());
    let export = from.maintainer.export().unwrap();
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    send(&export, &mut receiving, usize::MAX);
    drop(receiving.finish().unwrap());
    let receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(to.expected, from.expected);
}

/// The power goes at every operation of a transfer: afterwards there is the old state or the new
/// one, whole, and the transfer can be made again.
#[test]
fn the_power_may_go_during_a_transfer() {
    let from = sender(60);
    let export = from.maintainer.export().unwrap();
    let attempt = |to: &mut Small| -> Result<(), ReceiveError> {
        let mut receiving = to.maintainer.receive(export.manifest().clone())?;
        for file in receiving.missing() {
            for at in (file.offset..file.length).step_by(4000) {
                receiving.write(&file.name, at, &export.read(&file.name, at, 4000).unwrap())?;
            }
        }
        let received = receiving.finish()?;
        to.records.install(received)?;
        Ok(())
    };
    for kind in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn] {
        let mut number = 1u64;
        for count in 0.. {
            let here = files();
            let mut to = receiver(&here);
            to.apply(10, 50);
            to.take().unwrap();
            let old = to.expected.clone();
            here.power_off_after(count);
            let whole = attempt(&mut to).is_ok();
            here.crash(kind, &mut |bound| {
                number = number.wrapping_mul(6364136223846793005).wrapping_add(1);
                (number >> 33) % bound
            });
            let mut to = receiver(&here);
            assert!(to.expected == from.expected || (!whole && to.expected == old));
            to.check();
            if to.expected == old {
                attempt(&mut to).unwrap();
                to.expected = from.expected.clone();
                to.check();
            }
            if whole {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_stops_a_transfer_that_can_go_on_later() {
    let from = sender(200);
    let export = from.maintainer.export().unwrap();
    let here = files();
    let mut to = receiver(&here);
    let mut receiving = to.maintainer.receive(export.manifest().clone()).unwrap();
    here.set_capacity(Some(5000));
    let file = receiving.missing()[0].clone();
    let mut at = 0;
    let error = loop {
        let bytes = export.read(&file.name, at, 700).unwrap();
        match receiving.write(&file.name, at, &bytes) {
            Ok(()) => at += bytes.len() as u64,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReceiveError::NoSpace));
    here.set_capacity(None);
    send(&export, &mut receiving, usize::MAX);
    install(&mut to, receiving.finish().unwrap());
    assert_eq!(to.expected, from.expected);
}
