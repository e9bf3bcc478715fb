//! The crate etcd-client against a server: each case runs once and says on a line how it ended.
//! What reads the lines starts the server, says by environment variables how it is reached, counts
//! the cases, and restarts a member where a case asks for it.

mod access;
mod admin;
mod check;
mod kv;
mod lease;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use access::Access;
use check::Outcome;

/// For one case.
const PATIENCE: Duration = Duration::from_secs(30);

type Case<'a> = (&'static str, Pin<Box<dyn Future<Output = Outcome> + 'a>>);

macro_rules! cases {
    ($access:expr, $($module:ident::$name:ident),* $(,)?) => {
        vec![$((stringify!($name), Box::pin($module::$name($access)) as Pin<Box<dyn Future<Output = Outcome>>>)),*]
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let access = Access::from_environment();
    for (name, case) in chosen(&access) {
        match tokio::time::timeout(PATIENCE, case).await {
            Ok(Ok(())) => println!("ok {name}"),
            Ok(Err(failure)) => {
                println!("FAILED {name}: {}", failure.to_string().replace('\n', " "))
            }
            Err(_) => println!("FAILED {name}: it did not end within {PATIENCE:?}"),
        }
    }
    println!("end");
}

/// The cases of this setting.
fn chosen(access: &Access) -> Vec<Case<'_>> {
    let mut chosen: Vec<Case> = cases![
        access,
        kv::put_and_get,
        kv::large_value,
        kv::ranges,
        kv::range_stream,
        kv::deletes,
        kv::transactions,
        watch::events,
        watch::of_the_past,
        watch::progress,
        lease::lifetime,
        lease::expiry,
        lease::locks,
        lease::elections,
        admin::cluster,
        admin::maintenance,
        watch::resumes,
    ];
    if access.users() {
        chosen.extend(cases![
            access,
            admin::wrong_password,
            admin::forbidden,
            admin::no_login,
            admin::users_and_roles
        ]);
    }
    if access.users() && access.tls() {
        chosen.extend(cases![access, admin::certificate_is_a_login]);
    }
    chosen
}
