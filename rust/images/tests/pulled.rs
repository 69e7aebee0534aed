//! Images that are fetched from registries, well-behaved and hostile ones.

use std::time::{Duration, Instant};

use crate::archive::*;
use crate::registry::*;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::RegistryEntry;
use microsandbox_core::error::ImageErrorKind::{
    CorruptLayer, Denied, DigestMismatch, LimitExceeded, RateLimited, Transport,
};
use microsandbox_core::model::{PullEvent, PullPolicy, PullRequest};
use microsandbox_images as images;
use serde_json::{Value, json};

fn blobs(home: &Home) -> Vec<String> {
    names(&home.cache_dir().join("blobs/sha256"))
}

fn parts(home: &Home) -> Vec<String> {
    names(&home.cache_dir().join("blobs/.part"))
}

#[tokio::test]
async fn an_image_is_fetched_once_and_then_asks_for_nothing() {
    let (home, registry) = (Home::new(), Registry::of(&small()).await);
    let name = registry.name("team/app:1");
    let (info, events) = watched(&home, request(&name)).await;
    let info = info.unwrap();
    assert_eq!((info.reference.as_str(), info.layer_count), (name.as_str(), 2));
    assert_eq!(home.layer_count(), 2);
    // Two layers, their configuration and the manifest.
    assert_eq!(blobs(&home).len(), 4);
    assert!(parts(&home).is_empty());
    let requests = registry.targets();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(matches!(&events[0], PullEvent::Resolving { reference } if *reference == name), "{events:?}");
    assert!(matches!(&events[1], PullEvent::Resolved { layer_count: 2, total_download_bytes: Some(_), .. }));
    assert!(matches!(events.last().unwrap(), PullEvent::Complete { layer_count: 2, .. }));
    let count = |wanted: fn(&PullEvent) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, PullEvent::LayerDownloadComplete { .. })), 2, "{events:?}");
    assert_eq!(count(|event| matches!(event, PullEvent::LayerMaterializeComplete { .. })), 2, "{events:?}");

    let (again, events) = watched(&home, request(&name)).await;
    again.unwrap();
    assert_eq!((registry.log().len(), events.len()), (4, 0));
    pull(&home, PullRequest { policy: PullPolicy::Never, ..request(&name) }).await.unwrap();
    assert_eq!(registry.log().len(), 4);
}

#[tokio::test]
async fn an_unchanged_image_costs_one_request() {
    let home = Home::new();
    let shelf = Shelf::indexed(&small());
    let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
    let name = registry.name("app:1");
    let first = pull(&home, request(&name)).await.unwrap();
    let before = registry.log().len();
    let again = pull(&home, always(&name)).await.unwrap();
    assert_eq!(again.manifest_digest, first.manifest_digest);
    assert_eq!(registry.targets()[before..], ["HEAD /v2/app/manifests/1"]);
}

#[tokio::test]
async fn a_tag_that_moved_is_fetched_again() {
    let home = Home::new();
    let (old, mut new) = (Shelf::of(&small()), Layout::default());
    new.image("app:1", &[Layer::gzip(&[("bin/sh", b"new")])]);
    let new = Shelf::of(&new);
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_new = moved.clone();
    let registry = Registry::serve(move |seen| {
        if is_new.load(std::sync::atomic::Ordering::Relaxed) { new.answer(seen) } else { old.answer(seen) }
    })
    .await;
    let name = registry.name("app:1");
    let first = pull(&home, request(&name)).await.unwrap();
    moved.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(pull(&home, request(&name)).await.unwrap().manifest_digest, first.manifest_digest);
    let second = pull(&home, always(&name)).await.unwrap();
    assert_ne!(second.manifest_digest, first.manifest_digest);
    assert_eq!(images::list(&home).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_digest_pins_and_is_found_again_by_it() {
    let home = Home::new();
    let shelf = Shelf::indexed(&small());
    let (index, wrong) = (shelf.tagged.clone(), shelf.clone());
    let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
    let pinned = registry.name(&format!("app@{index}"));
    pull(&home, request(&pinned)).await.unwrap();
    let before = registry.log().len();
    pull(&home, request(&pinned)).await.unwrap();
    pull(&home, always(&pinned)).await.unwrap();
    assert_eq!(registry.log().len(), before, "a digest never changes its meaning");

    let other = sha256(b"other");
    let lying =
        Registry::serve(move |seen| wrong.answer(&Seen { target: "/v2/app/manifests/1".into(), ..seen.clone() })).await;
    let error = pull(&Home::new(), request(lying.name(&format!("app@{other}")))).await.unwrap_err();
    assert!(matches!(&error, MicrosandboxError::ImagePull { kind: DigestMismatch, .. }), "{error}");
}

#[tokio::test]
async fn a_missing_image_is_not_found() {
    let home = Home::new();
    let registry = Registry::serve(|_| Reply::new(404)).await;
    let error = pull(&home, request(registry.name("app:1"))).await.unwrap_err();
    assert!(
        matches!(&error, MicrosandboxError::ImageNotFound(text) if text.contains("begins with / or ./")),
        "{error}"
    );
    let never = PullRequest { policy: PullPolicy::Never, ..request(registry.name("app:1")) };
    assert!(matches!(pull(&home, never).await, Err(MicrosandboxError::ImageNotFound(_))));
    assert_eq!(registry.log().len(), 1);
}

// hazard: I11
#[tokio::test]
async fn wrong_content_never_enters_the_cache() {
    let home = Home::new();
    let shelf = Shelf::of(&small());
    let layer = shelf.layers()[0].clone();
    type Spoil = fn(Reply) -> Reply;
    let spoilt: [(Spoil, _); 4] = [
        (
            |mut reply| {
                reply.body[5] ^= 1;
                reply
            },
            DigestMismatch,
        ),
        (
            |mut reply| {
                reply.body.push(0);
                reply
            },
            DigestMismatch,
        ),
        (|reply| reply.header("Content-Encoding", "gzip"), CorruptLayer),
        (
            |mut reply| {
                reply.body.truncate(9);
                reply
            },
            DigestMismatch,
        ),
    ];
    for (spoil, kind) in spoilt {
        let (shelf, layer) = (shelf.clone(), layer.clone());
        let registry = Registry::serve(move |seen| {
            let reply = shelf.answer(seen);
            if seen.target.ends_with(&layer) { spoil(reply) } else { reply }
        })
        .await;
        let text = fails(&home, request(registry.name("app:1")), kind).await;
        assert!(text.contains(&shelf_of(&text)), "{text}");
        assert!(!blobs(&home).iter().any(|name| name.contains(&small_layer())), "a wrong blob is stored");
    }
    // The same home pulls it well afterwards.
    let registry = Registry::of(&small()).await;
    pull(&home, request(registry.name("app:1"))).await.unwrap();
}

fn shelf_of(text: &str) -> String {
    let at = text.find("sha256:").expect("a layer is named");
    text[at..at + 71].to_owned()
}

fn small_layer() -> String {
    Shelf::of(&small()).layers()[0]["sha256:".len()..].to_owned()
}

// hazard: I11
#[tokio::test]
async fn digests_of_other_kinds_are_refused() {
    let home = Home::new();
    for digest in ["sha512:aa", "md5:00", &sha256(b"x").to_uppercase(), "sha256:abc", "sha256:../../../../etc/passwd"] {
        let mut layout = Layout::default();
        layout.image_with(
            "app:1",
            &[Layer::plain(&[("a", b"a")])],
            config(&[Layer::plain(&[("a", b"a")])]),
            |manifest| {
                manifest["layers"][0]["digest"] = json!(digest);
            },
        );
        let registry = Registry::of(&layout).await;
        fails(&home, request(registry.name("app:1")), DigestMismatch).await;
        let blobs = registry.log().iter().filter(|seen| seen.is_blob()).count();
        assert!(blobs <= 1, "more than the configuration is fetched");
    }
}

// hazard: I11
#[tokio::test]
async fn a_manifest_is_what_its_digests_say() {
    let home = Home::new();
    let shelf = Shelf::of(&small());
    let registry = Registry::serve(move |seen| {
        let mut reply = shelf.answer(seen);
        for header in reply.headers.iter_mut().filter(|header| header.0 == "Docker-Content-Digest") {
            header.1 = sha256(b"another");
        }
        reply
    })
    .await;
    fails(&home, request(registry.name("app:1")), DigestMismatch).await;
}

// hazard: I12
#[tokio::test]
async fn a_manifest_without_an_end_is_cut_off() {
    let home = Home::new();
    let registry = Registry::serve(|_| {
        let reply = Reply::new(200).header("Content-Type", OCI_MANIFEST);
        Reply { endless: true, ..reply.body(vec![b' '; 1 << 16]) }
    })
    .await;
    let text = fails(&home, request(registry.name("app:1")), LimitExceeded).await;
    assert!(text.contains("image.manifest_bytes"), "{text}");
}

// hazard: I12
#[tokio::test]
async fn documents_that_are_not_what_they_claim_are_refused() {
    let home = Home::new();
    let digest = sha256(b"x");
    let layer = json!({"mediaType": OCI_LAYER, "digest": digest, "size": 1});
    let config = json!({"mediaType": OCI_CONFIG, "digest": digest, "size": 1});
    let deep = format!(r#"{{"schemaVersion":2,"x":{}{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    let many = vec![layer.clone(); 10_000];
    let manifest = |layers: Value| json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let both = json!({"schemaVersion": 2, "config": config, "layers": [layer], "manifests": []}).to_string();
    for (kind, body, error) in [
        (OCI_MANIFEST, deep, LimitExceeded),
        (OCI_MANIFEST, manifest(json!(many)), LimitExceeded),
        (OCI_MANIFEST, manifest(json!([])), CorruptLayer),
        (OCI_MANIFEST, manifest(json!({})), CorruptLayer),
        (OCI_MANIFEST, both.clone(), CorruptLayer),
        (OCI_INDEX, both, CorruptLayer),
        (OCI_MANIFEST, r#"{"schemaVersion":2,"schemaVersion":2}"#.into(), CorruptLayer),
        (OCI_INDEX, json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}).to_string(), CorruptLayer),
        ("application/vnd.docker.distribution.manifest.v1+json", r#"{"schemaVersion":1}"#.into(), CorruptLayer),
        ("text/html", "<html>".into(), CorruptLayer),
        ("application/json", "{}".into(), CorruptLayer),
    ] {
        let registry = Registry::serve(move |_| Reply::new(200).header("Content-Type", kind).body(body.clone())).await;
        fails(&home, request(registry.name("app:1")), error).await;
    }
}

// hazard: I12
#[tokio::test]
async fn indexes_are_followed_only_so_far() {
    let home = Home::new();
    let index =
        |manifests: Value| json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
    let entry = |bytes: &str| json!({"mediaType": OCI_INDEX, "digest": sha256(bytes.as_bytes()), "size": bytes.len()});
    // Nested: each names the one before.
    let layout = small();
    let mut shelf = Shelf::of(&layout);
    let mut last = index(json!(layout.index));
    for depth in 0..6 {
        shelf.tagged = shelf.add(last.as_bytes());
        let (shelf, fits) = (shelf.clone(), depth < 4);
        let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
        let done = pull(&Home::new(), request(registry.name("app:1"))).await;
        assert_eq!(done.is_ok(), fits, "{depth} {done:?}");
        assert!(registry.log().len() < 12);
        last = index(json!([entry(&last)]));
    }
    // Wide: none of them has an image.
    let mut wide = Shelf::of(&layout);
    let empty: Vec<Value> = (0..100).map(|n| {
        let text = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"n": n.to_string()}}).to_string();
        wide.add(text.as_bytes());
        entry(&text)
    }).collect();
    wide.tagged = wide.add(index(json!(empty)).as_bytes());
    let registry = Registry::serve(move |seen| wide.answer(seen)).await;
    fails(&home, request(registry.name("app:1")), LimitExceeded).await;
    assert_eq!(registry.log().len(), 32);
}

#[tokio::test]
async fn the_image_of_this_machine_is_chosen() {
    let home = Home::new();
    let mut layout = Layout::default();
    let others = [("linux", "vax", None), ("windows", architecture(), None), ("linux", "arm", Some("v6"))];
    for (os, arch, variant) in others {
        let mut foreign = config(&[Layer::plain(&[("a", arch.as_bytes())])]);
        foreign["architecture"] = json!(arch);
        layout.image_with("", &[Layer::plain(&[("a", arch.as_bytes())])], foreign, |_| {});
        let platform = json!({"os": os, "architecture": arch, "variant": variant});
        layout.index.last_mut().unwrap()["platform"] = platform;
    }
    let foreign_only = Shelf::indexed(&layout);
    layout.image("", &[Layer::plain(&[("bin/ours", b"x")])]);
    layout.index.last_mut().unwrap()["platform"] = json!({"os": "linux", "architecture": architecture()});
    let shelf = Shelf::indexed(&layout);
    let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
    let info = pull(&home, request(registry.name("app:1"))).await.unwrap();
    assert_eq!(info.architecture.as_deref(), Some(architecture()));
    // Index, manifest, configuration, layer: nothing of the others.
    assert_eq!(registry.log().len(), 4);
    let other = PullRequest { platform: Some("linux/vax".into()), ..always(registry.name("app:1")) };
    assert_eq!(pull(&home, other).await.unwrap().architecture.as_deref(), Some("vax"));

    let registry = Registry::serve(move |seen| foreign_only.answer(seen)).await;
    let error = pull(&home, request(registry.name("app:1"))).await.unwrap_err();
    let MicrosandboxError::ImageNotFound(text) = &error else { panic!("{error:?}") };
    for platform in ["linux/vax", "windows/", "linux/arm/v6"] {
        assert!(text.contains(platform), "{text}");
    }
}

// hazard: I14
#[tokio::test]
async fn a_cut_layer_continues_where_it_was_cut() {
    let home = Home::new();
    let shelf = Shelf::of(&large(3 << 20));
    let layer = shelf.layers()[0].clone();
    let size = shelf.blobs[&layer].len();
    let registry = Registry::serve(move |seen| {
        let reply = shelf.answer(seen);
        if seen.target.ends_with(&layer) && seen.before < 3 {
            let half = reply.body.len() / 2;
            return Reply { cut: Some(half), ..reply };
        }
        reply
    })
    .await;
    pull(&home, request(registry.name("app:1"))).await.unwrap();
    let ranges: Vec<Option<String>> = registry
        .log()
        .iter()
        .filter(|seen| seen.is_blob())
        .skip(1)
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert_eq!(ranges[0], None, "the first request has no range");
    assert_eq!(ranges[1].as_deref(), Some(format!("bytes={}-", size / 2).as_str()));
    let second = registry.log().into_iter().filter(|seen| seen.is_blob()).nth(2).unwrap();
    assert!(second.header("if-range").is_some());
}

// hazard: I14
#[tokio::test]
async fn a_registry_without_ranges_begins_again() {
    type Wrong = fn(&Seen, Reply, &[u8]) -> Reply;
    let wrongs: [(&str, Wrong); 4] = [
        ("ignored", |_, _, whole| Reply::new(200).body(whole)),
        ("refused", |seen, reply, _| if seen.header("range").is_some() { Reply::new(400) } else { reply }),
        ("416", |seen, reply, _| if seen.header("range").is_some() { Reply::new(416) } else { reply }),
        ("elsewhere", |seen, mut reply, whole| {
            if seen.header("range").is_some() {
                reply.headers = vec![("Content-Range".into(), format!("bytes 0-{}/{}", whole.len() - 1, whole.len()))];
            }
            reply
        }),
    ];
    for (name, wrong) in wrongs {
        let home = Home::new();
        let shelf = Shelf::of(&large(1 << 20));
        let layer = shelf.layers()[0].clone();
        let whole = shelf.blobs[&layer].clone();
        let registry = Registry::serve(move |seen| {
            let reply = shelf.answer(seen);
            if !seen.target.ends_with(&layer) {
                return reply;
            }
            if seen.before == 0 {
                return Reply { cut: Some(300_000), ..reply };
            }
            wrong(seen, reply, &whole)
        })
        .await;
        let done = pull(&home, request(registry.name("app:1"))).await;
        assert!(done.is_ok(), "{name}: {done:?}");
    }
}

// hazard: I14
#[tokio::test]
async fn the_next_pull_continues_what_this_one_left() {
    let home = Home::new();
    let shelf = Shelf::of(&large(1 << 20));
    let (layer, other) = (shelf.layers()[0].clone(), shelf.clone());
    let broken = Registry::serve(move |seen| {
        let reply = other.answer(seen);
        if seen.target.ends_with(&layer) { Reply { cut: Some(200_000 / (seen.before + 1)), ..reply } } else { reply }
    })
    .await;
    let text = fails(&home, request(broken.name("app:1")), Transport).await;
    assert!(text.contains(&broken.address.to_string()), "{text}");
    assert_eq!(parts(&home).len(), 1);
    let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
    pull(&home, request(registry.name("app:1"))).await.unwrap();
    assert!(registry.log().iter().any(|seen| seen.header("range").is_some()), "{:?}", registry.targets());
    assert!(parts(&home).is_empty());
}

// hazard: I14
#[tokio::test]
async fn passing_failures_are_outlived_and_lasting_ones_named() {
    let home = Home::new();
    let shelf = Shelf::of(&small());
    let registry = Registry::serve(move |seen| match seen.before {
        0 => Reply::new(503),
        1 => Reply::new(429).header("Retry-After", "0"),
        _ => shelf.answer(seen),
    })
    .await;
    pull(&home, request(registry.name("app:1"))).await.unwrap();

    let home = Home::new();
    let registry = Registry::serve(|_| Reply::new(429).header("Retry-After", "3600")).await;
    let begun = Instant::now();
    let text = fails(&home, request(registry.name("app:1")), RateLimited).await;
    assert!(begun.elapsed() < Duration::from_secs(20) && text.contains("registries.mirrors"), "{text}");
    assert_eq!(registry.log().len(), 1);
    let registry = Registry::serve(|_| Reply::new(500)).await;
    let text = fails(&home, request(registry.name("app:1")), Transport).await;
    assert!(text.contains("500"), "{text}");
    assert_eq!(registry.log().len(), 6);
}

// hazard: I14
#[tokio::test]
async fn a_registry_that_never_accepts_is_asked_twice() {
    let home = Home::new();
    let registry = Registry::serve(|seen| match seen.target.starts_with("/token") {
        true => Reply::new(200).body(r#"{"token":"useless-token"}"#),
        false => {
            let host = seen.header("host").unwrap();
            Reply::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token",service="s""#))
        }
    })
    .await;
    let text = fails(&home, request(registry.name("app:1")), Denied).await;
    assert!(text.contains("msb registry login"), "{text}");
    assert_eq!(registry.log().len(), 3, "{:?}", registry.targets());
    let registry = Registry::serve(|_| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#)).await;
    fails(&home, with_password(registry.name("app:1")), Denied).await;
    assert_eq!(registry.log().len(), 2);
    let registry = Registry::serve(|_| Reply::new(401)).await;
    fails(&home, with_password(registry.name("app:1")), Denied).await;
    assert_eq!(registry.log().len(), 1);
}

// hazard: I14
#[tokio::test]
async fn a_token_that_expires_between_two_requests_is_renewed() {
    let home = Home::new();
    let shelf = Shelf::of(&small());
    let registry = Registry::serve(move |seen| {
        if seen.target.starts_with("/token") {
            assert!(seen.target.contains("scope=repository%3Aapp%3Apull"), "{}", seen.target);
            return Reply::new(200)
                .body(format!(r#"{{"access_token":"token-number-{}","expires_in":300}}"#, seen.before));
        }
        // Good for the manifest only.
        let good = if seen.is_blob() { "Bearer token-number-1" } else { "Bearer token-number-0" };
        if seen.header("authorization") == Some(good) {
            return shelf.answer(seen);
        }
        let realm = format!("http://{}/token", seen.header("host").unwrap());
        Reply::new(401)
            .header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s",scope="repository:app:pull""#))
    })
    .await;
    pull(&home, request(registry.name("app:1"))).await.unwrap();
    assert_eq!(registry.log().iter().filter(|seen| seen.target.starts_with("/token")).count(), 2);
}

// hazard: I14
#[tokio::test]
async fn credentials_stay_with_their_host() {
    let home = Home::new();
    let shelf = Shelf::of(&small());
    let elsewhere = {
        let shelf = shelf.clone();
        Registry::serve(move |seen| shelf.answer(seen)).await
    };
    let storage = elsewhere.address;
    let registry = Registry::serve(move |seen| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#),
        Some(_) if seen.is_blob() => Reply::to(format!("http://{storage}{}", seen.target)),
        Some(_) => shelf.answer(seen),
    })
    .await;
    pull(&home, with_password(registry.name("app:1"))).await.unwrap();
    assert!(registry.log().iter().any(|seen| seen.header("authorization").is_some()));
    assert_eq!(elsewhere.log().len(), 3);
    for seen in elsewhere.log() {
        assert_eq!(seen.header("authorization"), None, "{seen:?}");
    }
    let text = format!("{:?}", with_password("x"));
    assert!(!text.contains("correct horse"), "{text}");
}

// hazard: I14
#[tokio::test]
async fn a_redirect_leads_nowhere_that_is_more_internal() {
    let home = Home::new();
    for (location, why) in [
        ("http://169.254.169.254/latest/meta-data", "internal"),
        ("http://[fe80::1]/x", "internal"),
        ("http://[::ffff:169.254.169.254]/x", "internal"),
        ("http://0xa9fea9fe/x", "internal"),
        ("file:///etc/passwd", "no address of HTTP"),
        ("gopher://127.0.0.1/", "no address of HTTP"),
        ("http://ann:secret@127.0.0.1/", "user name"),
    ] {
        let registry = Registry::serve(move |_| Reply::to(location)).await;
        let text = fails(&home, request(registry.name("app:1")), Transport).await;
        assert!(text.contains(why) && !text.contains("secret"), "{location}: {text}");
        assert_eq!(registry.log().len(), 1, "it is not repeated");
    }
    let registry = Registry::serve(|seen| Reply::to(format!("http://{}/again", seen.header("host").unwrap()))).await;
    let text = fails(&home, request(registry.name("app:1")), Transport).await;
    assert!(text.contains("more than 5"), "{text}");
    assert_eq!(registry.log().len(), 6);
}

// hazard: I14
#[tokio::test]
async fn a_token_service_is_no_way_to_internal_hosts() {
    let home = Home::new();
    for (realm, password, why) in [
        ("http://169.254.169.254/token", false, "internal"),
        ("file:///etc/passwd", false, "encrypted"),
        ("http://u:p@127.0.0.1/token", false, "user name"),
        ("not an address", false, "invalid"),
        ("https://tokens.example.org/token", true, "token_host"),
        ("http://127.0.0.2:1/token", true, "token_host"),
    ] {
        let registry = Registry::serve(move |_| {
            Reply::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s""#))
        })
        .await;
        let wanted = registry.name("app:1");
        let wanted = if password { with_password(wanted) } else { request(wanted) };
        let kind = if why == "internal" { Transport } else { Denied };
        let text = fails(&home, wanted, kind).await;
        assert!(text.contains(why), "{realm}: {text}");
        assert_eq!(registry.log().len(), 1);
    }
}

// hazard: I14
#[tokio::test]
async fn secrets_that_a_registry_repeats_are_not_shown() {
    let home = Home::new();
    let registry = Registry::serve(|seen| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#),
        Some(_) => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"ann:correct horse is wrong"}]}"#),
    })
    .await;
    let text = fails(&home, with_password(registry.name("app:1")), Denied).await;
    assert!(text.contains("ann:[secret] is wrong"), "{text}");
}

#[tokio::test]
async fn two_pulls_of_one_image_download_it_once() {
    let home = Home::new();
    let registry = Registry::of(&large(2 << 20)).await;
    let name = registry.name("app:1");
    let second = home.second();
    let (one, other) = (always(&name), always(&name));
    let (first, other) =
        in_time(async { tokio::join!(images::pull(&home, &one, None), images::pull(&second, &other, None)) }).await;
    first.unwrap();
    other.unwrap();
    let layers = registry.log().into_iter().filter(|seen| seen.is_blob() && seen.before > 0).count();
    // The configuration is small and may come twice.
    assert!(layers <= 1, "{:?}", registry.targets());
}

#[tokio::test]
async fn layers_that_are_there_are_not_fetched_again() {
    let home = Home::new();
    let base = Layer::gzip(&[("bin/sh", b"#!")]);
    let first = Registry::of(&Layout::of("app:1", std::slice::from_ref(&base))).await;
    pull(&home, request(first.name("app:1"))).await.unwrap();
    let second = Registry::of(&Layout::of("app:2", &[base, Layer::gzip(&[("srv/x", b"x")])])).await;
    pull(&home, request(second.name("app:2"))).await.unwrap();
    // Manifest, configuration and the new layer.
    assert_eq!(second.log().len(), 3, "{:?}", second.targets());
    assert_eq!(home.layer_count(), 2);
}

#[tokio::test]
async fn mirrors_are_asked_before_their_registry() {
    let shelf = Shelf::of(&small());
    let (good, lying) = (Registry::of(&small()).await, shelf.clone());
    // Has the documents, and a layer that is wrong.
    let liar = Registry::serve(move |seen| {
        let mut reply = lying.answer(seen);
        if seen.is_blob() {
            reply.body.reverse();
        }
        reply
    })
    .await;
    let empty = Registry::serve(|_| Reply::new(404)).await;
    let registry = Registry::serve(|_| Reply::new(500)).await;
    let host = registry.address.to_string();
    let named: Vec<String> = [&empty, &liar, &good].map(|mirror| format!("http://{}/cached", mirror.address)).into();
    let home = Home::of_registries(|registries| {
        registries.mirrors.insert(host.clone(), named);
    });
    let info = pull(&home, request(registry.name("app:1"))).await.unwrap();
    assert_eq!(info.reference, registry.name("app:1"));
    assert!(registry.log().is_empty(), "{:?}", registry.targets());
    assert_eq!(empty.targets()[0], format!("GET /v2/cached/app/manifests/1?ns={host}"));
    assert!(!good.log().is_empty());

    // Without a mirror that has it, the registry.
    let registry = Registry::serve(move |seen| shelf.answer(seen)).await;
    let home = Home::of_registries(|registries| {
        let dead = "http://127.0.0.1:9".to_owned();
        registries.mirrors.insert(registry.address.to_string(), vec![dead, format!("http://{}", empty.address)]);
    });
    pull(&home, request(registry.name("app:1"))).await.unwrap();
    assert!(!registry.log().is_empty());
}

// hazard: I14
#[tokio::test]
async fn a_client_of_a_server_reaches_no_internal_registry() {
    let registry = Registry::of(&small()).await;
    let mut wanted = request(registry.name("app:1"));
    wanted.access.public_only = true;
    let home = Home::new();
    // Files and services of the server's machine.
    let archive = home.file("a.tar", &small().archive());
    for source in [format!("oci-archive:{}", archive.display()), "docker-daemon:busybox:1".to_owned()] {
        let asked = PullRequest { reference: source, ..wanted.clone() };
        assert!(matches!(pull(&home, asked).await, Err(MicrosandboxError::InvalidConfig(_))));
    }
    let text = fails(&home, wanted.clone(), Transport).await;
    assert!(text.contains("for_clients") && registry.log().is_empty(), "{text}");
    wanted.reference = format!("localhost:{}/app:1", registry.address.port());
    fails(&home, wanted.clone(), Transport).await;
    assert!(registry.log().is_empty());
    let home = Home::of_registries(|registries| {
        let entry = RegistryEntry { for_clients: true, ..RegistryEntry::default() };
        registries.hosts.insert(format!("localhost:{}", registry.address.port()), entry);
    });
    let info = pull(&home, wanted.clone()).await.unwrap();
    // What is here is not given to a client without the registry's consent.
    images::remove(&home, &info.reference, true).await.unwrap();
    let before = registry.log().len();
    wanted.reference = format!("localhost:{}/app@{}", registry.address.port(), info.manifest_digest.unwrap());
    pull(&home, wanted).await.unwrap();
    assert!(registry.log().len() > before);
}
