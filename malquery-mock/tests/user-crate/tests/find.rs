//! A user's test, as in the guide in the docs of malquery-mock.

use malquery_mock::Session;
use malquery_proto::flow::Auth;
use malquery_ureq::{Settings, SystemClock, UreqTransport};

#[test]
fn a_sample_is_found() {
    let (client, guard) = Session::new("tests/cassettes/find.json")
        .client(|| {
            let Settings { base, credentials } = Settings::from_env().unwrap();
            (UreqTransport::new(), SystemClock, Auth::new(base, credentials))
        })
        .unwrap();
    let found = find_samples::find(&client, "hello").unwrap();
    assert_eq!(found.len(), 1);
    guard.finish();
}
