//! The archive of a multi-download: a zip file with uncompressed entries, which are encrypted with
//! ZipCrypto and named by SHA-256.
//!
//! The crate `zip` is not used, because it starts each encrypted entry with random bytes. The same
//! samples in the same order must produce the same archive.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::corpus::Entry;

const PASSWORD: &[u8] = b"infected";
/// The length of the encryption header before each sample, in bytes.
const HEADER: u64 = 12;

/// An archive of samples in a temporary file.
pub(super) struct Archive {
    file: Arc<Mutex<File>>,
    pub(super) length: u64,
}

impl Archive {
    pub(super) fn make(samples: &[Entry]) -> io::Result<Self> {
        let mut file = BufWriter::new(tempfile::tempfile()?);
        let mut directory = Vec::new();
        let mut at = 0;
        for sample in samples {
            let sha256 = sample.hashes.sha256;
            let name = sha256.to_string();
            let size = int32(sample.size() + HEADER)?;
            let mut crc = u32::MAX;
            chunks(sample, |chunk| {
                crc = chunk.iter().fold(crc, |crc, byte| crc32(crc, *byte));
                Ok(())
            })?;
            crc = !crc;
            // Version 2.0, encrypted, stored, 1980-01-01.
            let mut head = vec![20, 0, 1, 0, 0, 0, 0, 0, 33, 0];
            head.extend(
                [crc, size, size - HEADER as u32]
                    .map(u32::to_le_bytes)
                    .concat(),
            );
            head.extend([name.len() as u8, 0, 0, 0]);

            file.write_all(b"PK\x03\x04")?;
            file.write_all(&head)?;
            file.write_all(name.as_bytes())?;
            let mut keys = Keys::new();
            // Readers use the last byte to check the password.
            let mut start = sha256.as_bytes()[..HEADER as usize].to_vec();
            start[HEADER as usize - 1] = (crc >> 24) as u8;
            keys.encrypt(&mut start);
            file.write_all(&start)?;
            chunks(sample, |chunk| {
                keys.encrypt(chunk);
                file.write_all(chunk)
            })?;

            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(head);
            // No comment, first disk, no attributes.
            directory.extend([0; 10]);
            directory.extend(int32(at)?.to_le_bytes());
            directory.extend(name.as_bytes());
            at += 4 + 26 + name.len() as u64 + u64::from(size);
        }
        let count = u16::try_from(samples.len()).map_err(|_| too_large())?;
        file.write_all(&directory)?;
        file.write_all(b"PK\x05\x06\0\0\0\0")?;
        file.write_all(&[count, count].map(u16::to_le_bytes).concat())?;
        let length = int32(directory.len() as u64)?;
        file.write_all(&[length, int32(at)?].map(u32::to_le_bytes).concat())?;
        file.write_all(&[0, 0])?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Self {
            length: file.metadata()?.len(),
            file: Arc::new(Mutex::new(file)),
        })
    }

    /// Returns a reader of the archive. Several readers can be used at once.
    pub(super) fn read(&self) -> impl Read + Send + use<> {
        let file = self.file.clone();
        ArchiveReader { file, at: 0 }
    }
}

struct ArchiveReader {
    file: Arc<Mutex<File>>,
    at: u64,
}

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at))?;
        let count = file.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The keys of traditional PKWARE encryption (section 6.1 of the zip specification, APPNOTE).
struct Keys([u32; 3]);

impl Keys {
    fn new() -> Self {
        let mut keys = Self([0x1234_5678, 0x2345_6789, 0x3456_7890]);
        PASSWORD.iter().for_each(|byte| keys.update(*byte));
        keys
    }

    fn update(&mut self, byte: u8) {
        let Self([first, second, third]) = self;
        *first = crc32(*first, byte);
        *second = second
            .wrapping_add(*first & 0xff)
            .wrapping_mul(134_775_813)
            .wrapping_add(1);
        *third = crc32(*third, (*second >> 24) as u8);
    }

    fn encrypt(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            let key = (self.0[2] | 2) as u16;
            self.update(*byte);
            *byte ^= (key.wrapping_mul(key ^ 1) >> 8) as u8;
        }
    }
}

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ ((value & 1) * 0xedb8_8320);
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

fn crc32(crc: u32, byte: u8) -> u32 {
    CRC32[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
}

fn chunks(sample: &Entry, mut each: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = sample.open()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => each(&mut buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Converts a number for a 32-bit field of a zip file. Fails if the number is too large.
fn int32(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| too_large())
}

fn too_large() -> io::Error {
    io::Error::other("it would be larger than 4 GiB or contain more than 65,535 samples")
}
