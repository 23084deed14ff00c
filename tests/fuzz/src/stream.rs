use malquery_proto::stream::StreamCheck;
use malquery_proto::types::Sha256;
use sha2::Digest;

use super::input::Input;

/// The longest end of an archive: a record of 22 bytes and a comment.
const ZIP_END: usize = 22 + 65_535;

/// Checks a body in one chunk and in several. Both results must be right.
pub fn stream(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let (length, cap) = (u64::from(input.byte()), u64::from(input.byte()));
    // Sometimes longer than the part of an archive that is kept.
    let padding = match usize::from(input.byte()) {
        large @ 240.. => large * 600,
        small => small,
    };
    let chunks: [u8; 8] = std::array::from_fn(|_| input.byte());
    let middle = input.0.len().min(4);
    let body = [&input.0[..middle], &vec![0; padding], &input.0[middle..]].concat();

    let sha256 = Sha256::from_bytes(sha2::Sha256::digest(&body).into());
    let bytes = body.len() as u64;
    let mut check = StreamCheck::new();
    let mut right = true;
    match flags & 3 {
        1 => check = check.expect_length(bytes),
        2 => {
            check = check.expect_length(length);
            right &= length == bytes;
        }
        _ => {}
    }
    if flags & 4 != 0 {
        check = check.cap(cap);
        right &= bytes <= cap;
    }
    match flags >> 3 & 3 {
        1 => check = check.expect_sha256(sha256),
        2 => {
            check = check.expect_sha256(Sha256::from_bytes([7; 32]));
            right = false;
        }
        _ => {}
    }
    if flags & 32 != 0 {
        check = check.expect_zip();
        right &= is_zip(&body);
    }
    let sizes = chunks.iter().map(|size| {
        if flags & 64 != 0 {
            usize::from(*size) * 1024
        } else {
            usize::from(*size)
        }
    });
    let whole = feed(check.clone(), &body, [body.len()].into_iter());
    let parts = feed(check, &body, sizes);
    assert_eq!(whole, right.then_some((bytes, sha256)));
    assert_eq!(parts, whole);
}

/// Passes the body in chunks of these sizes, and then the rest.
fn feed(
    mut check: StreamCheck,
    mut body: &[u8],
    sizes: impl Iterator<Item = usize>,
) -> Option<(u64, Sha256)> {
    for size in sizes.chain([usize::MAX]) {
        let chunk;
        (chunk, body) = body.split_at(size.min(body.len()));
        check.update(chunk).ok()?;
    }
    let received = check.finish().ok()?;
    Some((received.bytes, received.sha256))
}

fn is_zip(body: &[u8]) -> bool {
    let begins = body.starts_with(b"PK\x03\x04") || body.starts_with(b"PK\x05\x06");
    let tail = &body[body.len().saturating_sub(ZIP_END)..];
    begins
        && (0..tail.len().saturating_sub(21)).any(|at| {
            let end = &tail[at..];
            end.starts_with(b"PK\x05\x06")
                && end.len() == 22 + usize::from(u16::from_le_bytes([end[20], end[21]]))
        })
}
