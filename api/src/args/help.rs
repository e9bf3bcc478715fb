//! What `--help` prints: the ways to call the program, then the flags that have an effect.
//!
//! Flags that are only accepted for old manifests are left out.

use super::table::{DEVELOPMENT, Effect, Flag, SERVER};

/// The ways to call the program; also printed under a usage error.
pub const USAGE: &str = "Usage:

  holdfast [flags]
    Run a member. Flags are etcd's; each can also be given as ETCD_FLAG_NAME.

  holdfast dev [--members 3] [--data-dir DIR] [--base-port PORT]
    Run a local cluster of processes until Ctrl-C; the same folder continues it.

  holdfast util snapshot status FILE [-w simple|json|table]
  holdfast util snapshot restore FILE [--data-dir DIR] [--name NAME] [--initial-cluster ...]
    Look at a snapshot of this server or of etcd; make a new member's data directory of it.

  holdfast util migrate --from ETCD-DATA-DIR --data-dir DIR [--name NAME] ...
    Make a data directory of that of a stopped etcd.

  holdfast util check DIR
    Verify the data directory of a member that is not running; changes nothing.

  holdfast --version
    Show the versions.

  holdfast -h | --help
    Show this help.
";

/// The whole help.
pub fn server() -> String {
    let mut text = USAGE.to_owned();
    let mut group = "";
    for flag in SERVER.iter().filter(|flag| is_shown(flag)) {
        if flag.group != group {
            group = flag.group;
            text.push_str(&format!("\n{group}:\n"));
        }
        describe(flag, &mut text);
    }
    text
}

/// The help of `holdfast dev`.
pub fn development() -> String {
    let mut text = String::from(
        "Usage:\n\n  holdfast dev [flags]\n    Run a local cluster of processes until Ctrl-C.\n\nFlags:\n",
    );
    DEVELOPMENT.iter().for_each(|flag| describe(flag, &mut text));
    text
}

/// The help of `holdfast util`.
pub fn util() -> String {
    let mut text = format!("{USAGE}\nFlags of util:\n");
    super::util::FLAGS.iter().for_each(|flag| describe(flag, &mut text));
    text
}

fn is_shown(flag: &Flag) -> bool {
    !flag.help.is_empty() && flag.effect == Effect::Works
}

fn describe(flag: &Flag, text: &mut String) {
    text.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help));
}
