//! gRPC's reflection service: clients such as grpcurl ask what can be called, and with what.
//!
//! Serves `grpc.reflection.v1.ServerReflection` and, with the same messages, its forerunner
//! `v1alpha`. etcd has neither. What members say to each other is left out.

use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, FileDescriptor};

use crate::leader::Raised;
use crate::rpc::{self, Outgoing, Receiver, Step};
use crate::status::Error;

/// The package of messages between members.
const PEER: &str = "holdfast.peer";
const NOT_FOUND: i32 = tonic::Code::NotFound as i32;

/// Every type and service of the API, and those between members.
pub(crate) static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET)
        .expect("the compiler's own output is whole")
});

/// One question.
#[derive(Clone, PartialEq, Message)]
pub struct Question {
    /// Of no meaning here; repeated in the answer.
    #[prost(string, tag = "1")]
    pub host: String,
    /// What is asked.
    #[prost(oneof = "Asked", tags = "3, 4, 5, 6, 7")]
    pub asked: Option<Asked>,
}

/// What is asked for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Asked {
    /// The file of this name.
    #[prost(string, tag = "3")]
    FileByName(String),
    /// The file that declares this service, method or type.
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    /// The file that extends a type; nothing here does.
    #[prost(message, tag = "5")]
    FileContainingExtension(Extension),
    /// The numbers of all extensions of a type.
    #[prost(string, tag = "6")]
    ExtensionNumbers(String),
    /// All services.
    #[prost(string, tag = "7")]
    Services(String),
}

/// An extension, by type and number.
#[derive(Clone, PartialEq, Message)]
pub struct Extension {
    /// The type that is extended.
    #[prost(string, tag = "1")]
    pub containing_type: String,
    /// The field's number.
    #[prost(int32, tag = "2")]
    pub number: i32,
}

/// One answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// As in the question.
    #[prost(string, tag = "1")]
    pub host: String,
    /// The question.
    #[prost(message, optional, tag = "2")]
    pub question: Option<Question>,
    /// What is answered.
    #[prost(oneof = "Answered", tags = "4, 5, 6, 7")]
    pub answered: Option<Answered>,
}

/// What is answered.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answered {
    /// Files, each after those it imports would have to be asked for.
    #[prost(message, tag = "4")]
    Files(Files),
    /// Numbers of extensions.
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumbers),
    /// Services.
    #[prost(message, tag = "6")]
    Services(Services),
    /// There is no such thing.
    #[prost(message, tag = "7")]
    Refused(Refused),
}

/// Encoded `google.protobuf.FileDescriptorProto`s.
#[derive(Clone, PartialEq, Message)]
pub struct Files {
    /// One each.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub encoded: Vec<Bytes>,
}

/// The extensions of a type.
#[derive(Clone, PartialEq, Message)]
pub struct ExtensionNumbers {
    /// The type.
    #[prost(string, tag = "1")]
    pub base_type: String,
    /// Their numbers.
    #[prost(int32, repeated, tag = "2")]
    pub numbers: Vec<i32>,
}

/// All services.
#[derive(Clone, PartialEq, Message)]
pub struct Services {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, PartialEq, Message)]
pub struct Service {
    /// With its package.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// A code of gRPC's.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// One client's stream: an answer for each question, in order.
pub struct Reflection {
    questions: Receiver,
    stopping: Raised,
}

impl Reflection {
    /// Answers the questions of a call until the client or the server ends it.
    pub fn new(questions: Receiver, stopping: Raised) -> Self {
        Self { questions, stopping }
    }
}

impl Outgoing for Reflection {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.stopping.poll(context).is_ready() {
            return Poll::Ready(Step::End(Err(Error::Stopped)));
        }
        self.questions.poll_next(context).map(|question| {
            let answer = question.and_then(|question| question.map(rpc::decode).transpose());
            match answer {
                Ok(Some(question)) => Step::Data(rpc::framed(&answer_to(question))),
                Ok(None) => Step::End(Ok(())),
                Err(error) => Step::End(Err(error)),
            }
        })
    }
}

fn answer_to(question: Question) -> Answer {
    let pool = &*DESCRIPTORS;
    let answered = match &question.asked {
        Some(Asked::FileByName(name)) => {
            file(name, pool.get_file_by_name(name).filter(is_for_clients))
        }
        Some(Asked::FileContainingSymbol(name)) => file(name, declaring(pool, name)),
        Some(Asked::FileContainingExtension(extension)) => file(&extension.containing_type, None),
        Some(Asked::ExtensionNumbers(name)) => match declaring(pool, name) {
            Some(_) => Answered::ExtensionNumbers(ExtensionNumbers {
                base_type: name.clone(),
                numbers: Vec::new(),
            }),
            None => file(name, None),
        },
        Some(Asked::Services(_)) => services(pool),
        None => Answered::Refused(Refused {
            code: tonic::Code::InvalidArgument as i32,
            message: "nothing is asked for".to_owned(),
        }),
    };
    Answer { host: question.host.clone(), answered: Some(answered), question: Some(question) }
}

fn file(name: &str, found: Option<FileDescriptor>) -> Answered {
    match found {
        Some(file) => {
            let encoded = vec![file.file_descriptor_proto().encode_to_vec().into()];
            Answered::Files(Files { encoded })
        }
        None => {
            Answered::Refused(Refused { code: NOT_FOUND, message: format!("{name} not found") })
        }
    }
}

/// The file that declares what `name` means.
fn declaring(pool: &DescriptorPool, name: &str) -> Option<FileDescriptor> {
    let method = |name: &str| {
        let (service, method) = name.rsplit_once('.')?;
        let service = pool.get_service_by_name(service)?;
        service.methods().any(|m| m.name() == method).then(|| service.parent_file())
    };
    pool.get_service_by_name(name)
        .map(|service| service.parent_file())
        .or_else(|| pool.get_message_by_name(name).map(|message| message.parent_file()))
        .or_else(|| pool.get_enum_by_name(name).map(|kind| kind.parent_file()))
        .or_else(|| method(name))
        .filter(is_for_clients)
}

fn is_for_clients(file: &FileDescriptor) -> bool {
    file.package_name() != PEER
}

fn services(pool: &DescriptorPool) -> Answered {
    let for_clients = pool.services().filter(|service| is_for_clients(&service.parent_file()));
    let named = |service: prost_reflect::ServiceDescriptor| Service {
        name: service.full_name().to_owned(),
    };
    Answered::Services(Services { services: for_clients.map(named).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(asked: Asked) -> Answered {
        let question = Question { host: "h".to_owned(), asked: Some(asked) };
        let answer = answer_to(question.clone());
        assert_eq!((answer.host.as_str(), answer.question), ("h", Some(question)));
        answer.answered.expect("every question has an answer")
    }

    fn package(answered: &Answered) -> String {
        let Answered::Files(files) = answered else { panic!("{answered:?}") };
        let file =
            prost_reflect::prost_types::FileDescriptorProto::decode(files.encoded[0].clone());
        file.expect("a file").package().to_owned()
    }

    #[test]
    fn services_are_those_that_clients_call() {
        let Answered::Services(found) = answer(Asked::Services(String::new())) else {
            panic!("no list");
        };
        let mut names: Vec<_> = found.services.into_iter().map(|service| service.name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "etcdserverpb.Auth",
                "etcdserverpb.Cluster",
                "etcdserverpb.KV",
                "etcdserverpb.Lease",
                "etcdserverpb.Maintenance",
                "etcdserverpb.Watch",
                "grpc.health.v1.Health",
                "v3electionpb.Election",
                "v3lockpb.Lock",
            ]
        );
    }

    #[test]
    fn files_are_found_by_name_and_by_what_they_declare() {
        for symbol in [
            "etcdserverpb.KV",
            "etcdserverpb.KV.Range",
            "etcdserverpb.RangeRequest",
            "etcdserverpb.RangeRequest.SortOrder",
        ] {
            let found = answer(Asked::FileContainingSymbol(symbol.to_owned()));
            assert_eq!(package(&found), "etcdserverpb", "{symbol}");
        }
        assert_eq!(package(&answer(Asked::FileByName("mvcc.proto".to_owned()))), "mvccpb");
        let extension = Extension { containing_type: "mvccpb.KeyValue".to_owned(), number: 1 };
        let none = answer(Asked::ExtensionNumbers("mvccpb.KeyValue".to_owned()));
        assert!(matches!(none, Answered::ExtensionNumbers(found) if found.numbers.is_empty()));
        for asked in [
            Asked::FileContainingSymbol("etcdserverpb.KV.Nothing".to_owned()),
            Asked::FileByName("peer.proto".to_owned()),
            Asked::FileContainingExtension(extension),
            Asked::ExtensionNumbers("nothing".to_owned()),
        ] {
            assert!(matches!(answer(asked), Answered::Refused(refused) if refused.code == 5));
        }
    }
}
