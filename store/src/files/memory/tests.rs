use super::*;

const FOLDER: &str = "/data";

fn files() -> MemoryFiles {
    let files = MemoryFiles::new();
    files.create_directory(Path::new(FOLDER)).unwrap();
    files
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn no_choice(_: u64) -> u64 {
    unreachable!("nothing to choose")
}

#[test]
fn only_what_was_synced_survives_a_power_cut() {
    let files = files();
    let file = files.create(&path("a")).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    files.sync_directory(Path::new(FOLDER)).unwrap();
    file.write_all_at(b"unsynced", 6).unwrap();
    files.create(&path("unnamed")).unwrap().sync_data().unwrap();
    files.crash(Unsynced::Lost, &mut no_choice);
    assert_eq!(files.contents(&path("a")).unwrap(), b"synced");
    assert!(!files.exists(&path("unnamed")).unwrap());
    assert!(file.length().is_err(), "handles die with the power");
}

#[test]
fn a_synced_name_over_unsynced_bytes_is_an_empty_file() {
    let files = files();
    files.create(&path("a")).unwrap().write_all_at(b"bytes", 0).unwrap();
    files.sync_directory(Path::new(FOLDER)).unwrap();
    files.crash(Unsynced::Lost, &mut no_choice);
    assert_eq!(files.contents(&path("a")).unwrap(), b"");
}

#[test]
fn an_unsynced_rename_leaves_the_old_name() {
    let files = files();
    for name in ["old", "new"] {
        let file = files.create(&path(name)).unwrap();
        file.write_all_at(name.as_bytes(), 0).unwrap();
        file.sync_data().unwrap();
    }
    files.sync_directory(Path::new(FOLDER)).unwrap();
    files.rename(&path("new"), &path("old")).unwrap();
    assert_eq!(files.contents(&path("old")).unwrap(), b"new");
    files.crash(Unsynced::Lost, &mut no_choice);
    assert_eq!(files.contents(&path("old")).unwrap(), b"old");
    assert_eq!(files.contents(&path("new")).unwrap(), b"new");
}

#[test]
fn a_torn_write_loses_sectors_in_its_middle() {
    let files = files();
    let file = files.create(&path("a")).unwrap();
    files.sync_directory(Path::new(FOLDER)).unwrap();
    file.write_all_at(&[7; 4 * SECTOR_BYTES], 10).unwrap();
    let mut choices = [1, 0, 1, 0, 0].into_iter();
    files.crash(Unsynced::Torn, &mut |_| choices.next().unwrap());
    let left = files.contents(&path("a")).unwrap();
    let runs: Vec<_> = left.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(0, 10), (7, 502), (0, 512), (7, 512)]);
}

#[test]
fn a_prefix_keeps_time_order_across_files() {
    let files = files();
    let (a, b) = (files.create(&path("a")).unwrap(), files.create(&path("b")).unwrap());
    files.sync_directory(Path::new(FOLDER)).unwrap();
    a.write_all_at(b"1", 0).unwrap();
    b.write_all_at(b"2", 0).unwrap();
    a.write_all_at(b"3", 1).unwrap();
    let before = files.lock().clock;
    let mut choices = [before, 0].into_iter();
    files.crash(Unsynced::Prefix, &mut |_| choices.next().unwrap());
    assert_eq!(files.contents(&path("a")).unwrap(), b"1");
    assert_eq!(files.contents(&path("b")).unwrap(), b"2");
}

#[test]
fn faults_capacity_and_rot() {
    let files = files();
    let file = files.create(&path("a")).unwrap();
    files.fail(Operation::Sync, "/a", 1, io::ErrorKind::Other);
    file.sync_data().unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    files.set_capacity(Some(4));
    file.write_all_at(b"1234", 0).unwrap();
    let full = file.write_all_at(b"5", 4).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    files.flip(&path("a"), 1, 0x80).unwrap();
    file.sync_data().unwrap();
    files.sync_directory(Path::new(FOLDER)).unwrap();
    files.crash(Unsynced::Lost, &mut no_choice);
    assert_eq!(files.contents(&path("a")).unwrap(), [b'1', b'2' ^ 0x80, b'3', b'4']);
}

#[test]
fn the_power_can_go_at_any_operation() {
    let files = files();
    let file = files.create(&path("a")).unwrap();
    files.power_off_after(1);
    file.write_all_at(b"1", 0).unwrap();
    assert!(file.write_all_at(b"2", 1).is_err());
    assert!(files.list(Path::new(FOLDER)).is_err());
    files.crash(Unsynced::Kept, &mut no_choice);
    assert_eq!(files.contents(&path("a")).unwrap(), b"1");
}
