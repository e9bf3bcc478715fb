//! What a case is checked with. A check that fails is an error, not a panic: the next cases run.

use std::fmt::Debug;
use std::io;

use etcd_client::{Error, ResponseHeader};

pub type Failure = Box<dyn std::error::Error>;
pub type Outcome = Result<(), Failure>;

/// Every key of these cases.
pub fn key(name: &str) -> String {
    format!("app/rust/{name}")
}

#[track_caller]
pub fn equal<T: PartialEq + Debug>(got: T, want: T) -> Outcome {
    let line = std::panic::Location::caller();
    if got == want { Ok(()) } else { Err(format!("{line}: got {got:?}, want {want:?}").into()) }
}

#[track_caller]
pub fn holds(what: &str, value: bool) -> Outcome {
    let line = std::panic::Location::caller();
    if value { Ok(()) } else { Err(format!("{line}: not so: {what}").into()) }
}

/// A request that must be refused with this message of etcd's.
#[track_caller]
pub fn fails<T>(result: Result<T, Error>, message: &str) -> Outcome {
    let line = std::panic::Location::caller();
    match result {
        Err(Error::GRpcStatus(status)) if status.message() == message => Ok(()),
        Err(error) => Err(format!("{line}: got {error}, want {message}").into()),
        Ok(_) => Err(format!("{line}: it was not refused, want {message}").into()),
    }
}

pub fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Has the first member killed, and started again.
pub fn restart() -> Outcome {
    println!("restart");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    equal(answer.as_str(), "done\n")
}
