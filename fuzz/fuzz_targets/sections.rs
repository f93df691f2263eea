//! The outer form of a snapshot file: taken apart, and put together with lengths and checksums
//! that are right.

const HEADER: &[u8; 16] = b"MEMTRACE\x02\0\0\0\x04\x03\x02\x01";
/// Tag and length.
const SECTION_HEADER_LEN: usize = 12;
const CHECKSUM_LEN: usize = 4;

#[derive(Clone)]
pub struct Section {
    pub tag: [u8; 4],
    pub contents: Vec<u8>,
}

/// Takes a file apart, if its header and lengths are right. There is at least one section.
pub fn split(file: &[u8]) -> Option<Vec<Section>> {
    let mut rest = file.strip_prefix(HEADER)?;
    let mut sections = Vec::new();
    while !rest.is_empty() {
        let (header, after) = rest.split_at_checked(SECTION_HEADER_LEN)?;
        let (tag, len) = header.split_first_chunk::<4>()?;
        let len = u64::from_le_bytes(*len.first_chunk()?);
        let (contents, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
        let (_, after) = after.split_at_checked(CHECKSUM_LEN)?;
        sections.push(Section { tag: *tag, contents: contents.to_vec() });
        rest = after;
    }
    (!sections.is_empty()).then_some(sections)
}

/// Puts a file together.
pub fn join(sections: &[Section]) -> Vec<u8> {
    let mut file = HEADER.to_vec();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&file);
    for Section { tag, contents } in sections {
        let start = file.len();
        file.extend(tag);
        file.extend((contents.len() as u64).to_le_bytes());
        file.extend(contents);
        checksum.update(&file[start..]);
        file.extend(checksum.clone().finalize().to_le_bytes());
    }
    file
}
