use super::*;

const OPEN: Policy = Policy { isolation: model::Isolation::Container, host_image: true, share_local: false };

fn refused(body: Value) -> ApiError {
    config(body, &OPEN).unwrap_err()
}

fn spec_with(key: &str, value: Value) -> Value {
    let mut body = json!({ "name": "a", "image": { "type": "oci", "reference": "host" } });
    body[key] = value;
    body
}

#[test]
fn both_dialects_give_a_detached_sandbox_of_the_policy() {
    for image in [json!("host"), json!({ "type": "oci", "reference": "host" })] {
        let body = json!({ "name": "a", "image": image });
        let made = config(body.clone(), &OPEN).unwrap().spec;
        assert!(made.detached);
        assert_eq!(made.image, ImageSource::Host { prefixes: Vec::new() });
        assert_eq!((made.resources.cpus, made.resources.memory_mib), (1, 512));
        assert_eq!(made.isolation, model::Isolation::Container);
        let refused = config(body, &Policy { host_image: false, ..OPEN }).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (422, "unsupported"));
    }
}

#[test]
fn unsupported_and_unknown_options_are_refused() {
    let unsupported = [
        ("resources", json!({ "disk_size_mib": 5 })),
        ("patches", json!([{ "type": "remove", "path": "/x" }])),
        ("network", json!({ "policy": {} })),
        ("network", json!({ "secrets": {} })),
        ("network", json!({ "max_connections": 3 })),
        ("init", json!({ "cmd": "auto" })),
        ("slug", json!("mine")),
        ("registry", json!({ "mode": "specific", "credential_id": "hunter2" })),
        ("image", json!({ "type": "bind", "path": "/etc" })),
        ("image", json!({ "type": "oci", "reference": "docker-archive:/root/image.tar" })),
        ("image", json!({ "type": "oci", "reference": "oci-archive:/root/image.tar:1" })),
        ("image", json!({ "type": "oci", "reference": "oci:/root/layout" })),
        ("image", json!({ "type": "oci", "reference": "docker-daemon:secret" })),
        ("image", json!({ "type": "disk_image", "path": "/dev/sda", "format": "raw" })),
        ("mounts", json!([{ "type": "bind", "host": "/etc", "guest": "/x" }])),
        ("mounts", json!([{ "type": "disk_image", "host": "/dev/sda", "guest": "/x", "format": "raw" }])),
    ];
    for (key, value) in unsupported {
        let error = refused(spec_with(key, value));
        assert_eq!((error.status.as_u16(), error.code), (422, "unsupported"), "{key}");
        assert!(!error.message.contains("hunter2"));
    }
    for (key, value) in [
        ("later", json!(1)),
        ("runtime", json!({ "hostname": "x" })),
        ("runtime", json!({ "log_level": "loud" })),
        ("network", json!({ "dns": [] })),
        ("mounts", json!([{ "type": "warp", "guest": "/x" }])),
    ] {
        let error = refused(spec_with(key, value));
        assert_eq!((error.status.as_u16(), error.code), (400, "invalid_request"), "{key}");
    }
    assert_eq!(refused(json!({ "name": "a", "image": "host", "cmd": ["x"] })).code, "invalid_request");
    assert_eq!(refused(json!([])).code, "invalid_request");
}

#[test]
fn ids_convert_to_uuids_and_back() {
    let hex = "00112233445566778899aabbccddeeff";
    assert_eq!(uuid(hex), "00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(from_uuid(&uuid(hex)), hex);
    assert_eq!(from_uuid(hex), hex);
    assert_eq!(from_uuid("nonsense"), "nonsense");
}

#[test]
fn a_clients_credentials_go_to_public_registries_only() {
    let ask = |registry: Value| config(spec_with("registry", registry), &OPEN).unwrap().registry;
    let given = ask(json!({ "mode": "inline", "username": "u", "password": "hunter2" }));
    let auth = given.auth.clone().unwrap();
    assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "hunter2"));
    assert!(!format!("{given:?}").contains("hunter2"));
    assert!(given.public_only && !given.anonymous && !given.insecure);
    let anonymous = ask(json!({ "mode": "anonymous" }));
    assert!(anonymous.anonymous && anonymous.auth.is_none() && anonymous.public_only);
    let automatic = ask(json!({ "mode": "auto" }));
    assert_eq!(automatic, RegistryAccess { public_only: true, ..RegistryAccess::default() });
    assert!(config(json!({ "name": "a", "image": "debian:12" }), &OPEN).unwrap().registry.public_only);
}
