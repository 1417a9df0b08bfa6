//! What is asked after what.

use super::*;
use crate::source::wire::{Status, StatusCause, StatusDetails};

fn refused(code: i32) -> Failure {
    let reason = if code == 410 { "Expired" } else { "" };
    let status = Status {
        code,
        reason: reason.into(),
        ..Status::default()
    };
    let retry_after = None;
    Failure::Refused { status, retry_after }
}

fn too_large() -> Failure {
    let cause = StatusCause {
        reason: "ResourceVersionTooLarge".into(),
        message: String::new(),
    };
    let details = StatusDetails {
        causes: vec![cause],
        retry_after_seconds: 1,
    };
    let status = Status {
        code: 504,
        details: Some(details),
        ..Status::default()
    };
    let retry_after = None;
    Failure::Refused { status, retry_after }
}

fn stalled() -> Failure {
    Failure::Stalled {
        during: "testing",
        after: Duration::ZERO,
    }
}

fn broken() -> Failure {
    Failure::Broken("reset".into())
}

fn connect() -> Failure {
    Failure::Connect("refused".into())
}

fn stream_list(version: &str) -> Request {
    Request::StreamList {
        version: version.into(),
    }
}

fn list(version: &str, paged: bool) -> Request {
    Request::List {
        version: version.into(),
        paged,
        token: String::new(),
    }
}

fn page(token: &str) -> Request {
    Request::List {
        version: String::new(),
        paged: true,
        token: token.into(),
    }
}

fn watch(version: &str) -> Request {
    Request::Watch {
        version: version.into(),
    }
}

fn check(version: &str) -> Request {
    Request::Check {
        version: version.into(),
    }
}

fn meta(version: &str, token: &str) -> ListMeta {
    ListMeta {
        resource_version: version.into(),
        continue_token: token.into(),
    }
}

fn watching(version: &str) -> Reflector {
    let mut reflector = Reflector::new();
    reflector.listed(version.into());
    reflector
}

#[test]
fn a_streaming_list_goes_over_into_a_watch() {
    let mut reflector = Reflector::new();
    assert_eq!(reflector.next(), stream_list(""));
    reflector.listed("7".into());
    assert_eq!(reflector.next(), watch("7"));
    reflector.observed("9".into()).unwrap();
    reflector.closed();
    assert_eq!(reflector.next(), watch("9"));
}

#[test]
fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    let bookmark = Failure::Decode("a bookmark".into());
    let failures = [
        refused(400),
        refused(404),
        refused(405),
        refused(422),
        refused(500),
        stalled(),
        broken(),
        bookmark,
    ];
    // Or the stream ends in good order, without having said that the list is complete.
    for failure in failures.map(Some).into_iter().chain([None]) {
        let mut reflector = Reflector::new();
        match failure {
            Some(failure) => assert_eq!(reflector.failed(&failure), Pace::AnotherWay),
            None => reflector.closed(),
        }
        assert_eq!(reflector.next(), list("0", true));
        assert_eq!(reflector.page(meta("5", "more")), Ok(false));
        assert_eq!(reflector.next(), page("more"));
        assert_eq!(reflector.page(meta("5", "")), Ok(true));
        assert_eq!(reflector.next(), watch("5"));
    }
}

#[test]
fn what_no_other_request_would_change_is_waited_out() {
    let client = Failure::Client("x".into());
    for failure in [client, refused(401), refused(403), refused(408), refused(429)] {
        let mut listing = Reflector::new();
        listing.closed();
        let mut watching = watching("5");
        for reflector in [&mut Reflector::new(), &mut listing, &mut watching] {
            let before = reflector.next();
            for _ in 0..10 {
                assert_eq!(reflector.failed(&failure), Pace::Wait, "{failure}");
                assert_eq!(reflector.next(), before, "{failure}");
            }
        }
    }
    let mut unlisted = Reflector::new();
    assert_eq!(unlisted.failed(&connect()), Pace::Wait);
    assert_eq!(unlisted.next(), stream_list(""));
}

#[test]
fn a_lost_watch_is_resumed_where_it_was_once_the_server_has_got_there() {
    for failure in [broken(), stalled(), connect()] {
        let mut reflector = watching("5");
        for _ in 0..10 {
            assert_eq!(reflector.failed(&failure), Pace::Wait);
            assert_eq!(reflector.next(), check("5"));
        }
        assert_eq!(reflector.checked("6"), Ok(()));
        assert_eq!(reflector.next(), watch("5"));
    }
}

#[test]
fn a_server_that_was_restored_from_a_backup_is_listed_as_of_now() {
    let mut reflector = watching("500");
    reflector.failed(&broken());
    assert_eq!(reflector.failed(&too_large()), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list(""));

    let mut reflector = watching("500");
    reflector.failed(&broken());
    let failure = reflector.checked("20").unwrap_err();
    assert_eq!(reflector.failed(&failure), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list(""));
}

#[test]
fn a_server_that_cannot_check_is_watched_all_the_same() {
    for code in [400, 410, 422] {
        let mut reflector = watching("5");
        reflector.failed(&broken());
        assert_eq!(reflector.failed(&refused(code)), Pace::AnotherWay);
        assert_eq!(reflector.next(), watch("5"));
    }
}

#[test]
fn a_watch_that_keeps_failing_otherwise_is_given_up_for_a_list() {
    for failure in [refused(500), Failure::Decode("nonsense".into())] {
        let mut reflector = watching("5");
        assert_eq!(reflector.failed(&failure), Pace::Wait);
        assert_eq!(reflector.failed(&failure), Pace::Wait);
        // One event in between shows that it works.
        reflector.observed("6".into()).unwrap();
        assert_eq!(reflector.failed(&failure), Pace::Wait);
        assert_eq!(reflector.failed(&failure), Pace::Wait);
        assert_eq!(reflector.failed(&failure), Pace::AnotherWay);
        assert_eq!(reflector.next(), stream_list("6"), "{failure}");
    }
}

#[test]
fn an_expired_watch_is_followed_by_a_list_no_older_than_what_is_known() {
    let mut reflector = watching("5");
    assert_eq!(reflector.failed(&refused(410)), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list("5"));
    reflector.closed();
    // With any other version than 0 the cache answers only unpaged lists.
    assert_eq!(reflector.next(), list("5", false));
    // That one expired as well: then as of now.
    assert_eq!(reflector.failed(&refused(410)), Pace::AnotherWay);
    assert_eq!(reflector.next(), list("", true));
    assert_eq!(reflector.failed(&refused(410)), Pace::Wait);
    reflector.listed("9".into());
    assert_eq!(reflector.next(), watch("9"));
}

#[test]
fn a_version_that_the_server_never_heard_of_is_forgotten() {
    let mut reflector = watching("500");
    assert_eq!(reflector.failed(&too_large()), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list(""));

    let mut reflector = watching("500");
    reflector.failed(&refused(410));
    assert_eq!(reflector.next(), stream_list("500"));
    assert_eq!(reflector.failed(&too_large()), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list(""));
    reflector.listed("3".into());
    assert_eq!(reflector.observed("4".into()), Ok(()));
}

#[test]
fn a_version_that_goes_back_leads_to_a_list_as_of_now() {
    let mut reflector = watching("500");
    let failure = reflector.observed("20".into()).unwrap_err();
    assert!(failure.to_string().contains("from 500 to 20"), "{failure}");
    assert_eq!(reflector.failed(&failure), Pace::AnotherWay);
    assert_eq!(reflector.next(), stream_list(""));
    reflector.listed("21".into());
    assert_eq!(reflector.observed("21".into()), Ok(()));
    // Nine digits and ten compare as numbers; what is no number is taken as it comes.
    let mut reflector = watching("999999999");
    assert_eq!(reflector.observed("1000000000".into()), Ok(()));
    assert_eq!(reflector.observed("opaque".into()), Ok(()));
    assert_eq!(reflector.observed(String::new()), Ok(()));
    assert_eq!(reflector.next(), watch("opaque"));
}

#[test]
fn an_expired_page_is_followed_by_the_whole_list() {
    for failure in [refused(410), refused(400)] {
        let mut reflector = Reflector::new();
        reflector.closed();
        reflector.page(meta("5", "more")).unwrap();
        assert_eq!(reflector.failed(&broken()), Pace::Wait);
        assert_eq!(reflector.next(), page("more"));
        assert_eq!(reflector.failed(&failure), Pace::AnotherWay);
        assert_eq!(reflector.next(), list("0", false));
        assert_eq!(reflector.page(meta("8", "")), Ok(true));
        assert_eq!(reflector.next(), watch("8"));
    }
}

#[test]
fn a_server_without_a_cache_is_asked_for_pages_ever_after() {
    let mut reflector = Reflector::new();
    reflector.closed();
    reflector.page(meta("5", "more")).unwrap();
    reflector.page(meta("5", "")).unwrap();
    reflector.failed(&refused(410));
    reflector.closed();
    assert_eq!(reflector.next(), list("5", true));
}

#[test]
fn a_watch_at_a_version_that_the_server_finds_bad_is_followed_by_a_list_as_of_now() {
    for code in [400, 404, 422] {
        let mut reflector = watching("x");
        assert_eq!(reflector.failed(&refused(code)), Pace::AnotherWay);
        assert_eq!(reflector.next(), stream_list(""));
    }
}

#[test]
fn a_list_without_a_version_is_no_list() {
    let mut reflector = Reflector::new();
    reflector.closed();
    assert!(reflector.page(meta("", "")).is_err());
    assert_eq!(reflector.next(), list("0", true));
}

#[test]
fn requests_say_in_their_url_what_they_ask() {
    let timeout = Duration::from_secs(300);
    let base = Resource::endpoint_slices().url(&[]);
    for (request, expected) in [
        (
            stream_list(""),
            "&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
             &timeoutSeconds=300",
        ),
        (
            stream_list("5"),
            "&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5\
             &allowWatchBookmarks=true&timeoutSeconds=300",
        ),
        (
            watch("5"),
            "&watch=true&resourceVersion=5&allowWatchBookmarks=true&timeoutSeconds=300",
        ),
        (
            check("5"),
            "&limit=1&resourceVersionMatch=NotOlderThan&resourceVersion=5",
        ),
        (list("0", true), "&limit=500&resourceVersion=0"),
        (list("", true), "&limit=500"),
        (list("5", false), "&resourceVersion=5"),
        (page("a/b"), "&limit=500&continue=a%2Fb"),
    ] {
        let url = request.url(&Resource::endpoint_slices(), timeout);
        assert_eq!(url.strip_prefix(&base), Some(expected), "{request:?}");
    }
}
