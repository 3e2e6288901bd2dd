//! What a Kafka user may do, granted by the brokers' administrator. The safe client does not offer it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka_sys as sys;
use sys::rd_kafka_AclOperation_t as Operation;
use sys::rd_kafka_AclPermissionType_t as Permission;
use sys::rd_kafka_ResourcePatternType_t as Pattern;
use sys::rd_kafka_ResourceType_t as Resource;

/// One operation on one resource, as an option of `kafka-acls` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// As in `Read`, `DescribeConfigs`.
    pub operation: String,
    /// As in `topic`, `group`, `transactional-id`, `cluster`.
    pub resource: String,
    /// The name of the resource, or of all that begin so.
    pub name: String,
    pub prefixed: bool,
}

impl Acl {
    pub fn new(operation: &str, resource: &str, name: &str) -> Acl {
        let [operation, resource, name] = [operation, resource, name].map(str::to_owned);
        Acl { operation, resource, name, prefixed: false }
    }

    /// Those that docs/security.md grants under a heading, in its commands for `kafka-acls`.
    pub fn documented(heading: &str) -> Vec<Acl> {
        let text = include_str!("../../docs/security.md");
        let (_, section) = text.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        let section = section.split_once("\n### ").map_or(section, |(section, _)| section);
        let acls: Vec<Acl> =
            section.lines().filter_map(|line| line.strip_prefix("$acls ")).flat_map(Acl::of_command).collect();
        assert!(!acls.is_empty(), "no commands under {heading:?}");
        acls
    }

    fn of_command(command: &str) -> Vec<Acl> {
        let mut words = command.split_whitespace();
        let mut operations = Vec::new();
        let (mut resource, mut name, mut prefixed) = (None, "kafka-cluster", false);
        while let Some(option) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{option} without a value: {command}"));
            match option.trim_start_matches("--") {
                "allow-principal" => drop(value()),
                "operation" => operations.push(value()),
                "resource-pattern-type" => prefixed = value() == "prefixed",
                "cluster" => resource = Some("cluster"),
                kind @ ("topic" | "group" | "transactional-id") => (resource, name) = (Some(kind), value()),
                _ => panic!("{option}: {command}"),
            }
        }
        let resource = resource.unwrap_or_else(|| panic!("no resource: {command}"));
        let acl = |operation| Acl { prefixed, ..Acl::new(operation, resource, name) };
        operations.into_iter().map(acl).collect()
    }
}

/// Allows a user, as in `User:clicktide`, to do these.
pub fn allow(brokers: &str, principal: &str, acls: &[Acl]) {
    create(brokers, principal, acls, Permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW);
}

/// Denies a user to do these, whatever else is allowed.
pub fn deny(brokers: &str, principal: &str, acls: &[Acl]) {
    create(brokers, principal, acls, Permission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY);
}

const TIMEOUT_MS: c_int = 30_000;

fn create(brokers: &str, principal: &str, acls: &[Acl], permission: Permission) {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let rk = client.client().native_ptr();
    let mut bindings: Vec<_> = acls.iter().map(|acl| binding(acl, principal, permission)).collect();
    // SAFETY: the client outlives all that is made of it here, each of which is destroyed once; librdkafka copies the bindings.
    unsafe {
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_CreateAcls(rk, bindings.as_mut_ptr(), bindings.len(), ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, TIMEOUT_MS);
        assert!(!event.is_null(), "the broker does not answer");
        let error = CStr::from_ptr(sys::rd_kafka_err2str(sys::rd_kafka_event_error(event)));
        assert_eq!(error, c"Success", "{acls:?}");
        let mut count = 0;
        let results = sys::rd_kafka_CreateAcls_result_acls(sys::rd_kafka_event_CreateAcls_result(event), &mut count);
        for (acl, result) in acls.iter().zip(std::slice::from_raw_parts(results, count)) {
            let error = sys::rd_kafka_acl_result_error(*result);
            assert!(error.is_null(), "{acl:?}: {:?}", CStr::from_ptr(sys::rd_kafka_error_string(error)));
        }
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AclBinding_destroy_array(bindings.as_mut_ptr(), bindings.len());
    }
}

fn binding(acl: &Acl, principal: &str, permission: Permission) -> *mut sys::rd_kafka_AclBinding_t {
    let operation = match acl.operation.as_str() {
        "Read" => Operation::RD_KAFKA_ACL_OPERATION_READ,
        "Write" => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
        "Create" => Operation::RD_KAFKA_ACL_OPERATION_CREATE,
        "Describe" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        "DescribeConfigs" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
        other => panic!("operation {other}"),
    };
    let resource = match acl.resource.as_str() {
        "topic" => Resource::RD_KAFKA_RESOURCE_TOPIC,
        "group" => Resource::RD_KAFKA_RESOURCE_GROUP,
        "transactional-id" => Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
        "cluster" => Resource::RD_KAFKA_RESOURCE_BROKER,
        other => panic!("resource {other}"),
    };
    let pattern = match acl.prefixed {
        true => Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
        false => Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
    };
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (name, principal, mut why) = (text(&acl.name), text(principal), [0 as c_char; 512]);
    // SAFETY: librdkafka copies the texts, and writes at most so many bytes into the buffer, with a NUL behind.
    unsafe {
        let binding = sys::rd_kafka_AclBinding_new(
            resource,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            c"*".as_ptr(),
            operation,
            permission,
            why.as_mut_ptr(),
            why.len(),
        );
        assert!(!binding.is_null(), "{acl:?}: {:?}", CStr::from_ptr(why.as_ptr()));
        binding
    }
}
