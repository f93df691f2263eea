//! Unwind tables, and stacks to be walked.

use object::{Object, ObjectSection};
use std::env;
use std::fs;

const FRAMES_ADDR: u64 = 0x10_0000;
const HEADER_ADDR: u64 = 0xF_0000;
/// Where the functions of tables made here begin.
const CODE_ADDR: u64 = 0x5000;
/// How much of a real section is taken, in bytes.
const MAX_REAL_LEN: usize = 2048;

/// Version, augmentation, alignments, return address; CFA = rsp + 8, return address at CFA - 8.
const CIE: &[u8] =
    &[20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1B, 0x0C, 7, 8, 0x90, 1, 0, 0];
/// The same of signal frames, with an entry for a language's data.
const SIGNAL_CIE: &[u8] = &[
    24, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', b'S', b'L', 0, 1, 0x78, 16, 2, 0x1B, 0x1B, 0x0C, 7, 8,
    0x90, 1, 0, 0, 0,
];
/// Standard prologue and epilogue, and a state that is remembered.
const PROLOGUE: &[u8] =
    &[0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x0A, 0x50, 0x0C, 7, 8, 0xC6, 0x41, 0x0B];
/// What linkers write for `.plt`.
const PLT: &[u8] = &[
    0x0E, 16, 0x46, 0x0E, 24, 0x4A, 0x0F, 11, 0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24,
    0x22,
];
/// A realigned frame, and registers found by expressions.
const EXPRESSIONS: &[u8] = &[
    0x0F, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x77, 16, 0x16, 7, 2, 0x77, 8, 0x10, 16, 3, 0x77, 0, 6,
];
/// The outermost frame, by an undefined return address.
const OUTERMOST: &[u8] = &[0x07, 16];
/// Numbers of all widths, vector registers, and the rarer instructions.
const RARE: &[u8] = &[
    0x02, 1, 0x03, 2, 0, 0x04, 3, 0, 0, 0, 0x05, 0x21, 9, 0x06, 6, 0x08, 6, 0x09, 6, 11, 0x11, 6,
    0x7E, 0x12, 7, 0x7E, 0x13, 0x7D, 0x14, 6, 2, 0x15, 6, 0x7F, 0x2E, 16,
];

/// Inputs of the target `tables`.
pub(crate) fn tables() -> Vec<(&'static str, Vec<u8>)> {
    let made = [
        ("prologue", CIE, PROLOGUE),
        ("plt", CIE, PLT),
        ("signal", SIGNAL_CIE, EXPRESSIONS),
        ("outermost", CIE, OUTERMOST),
        ("rare", CIE, RARE),
    ];
    let mut seeds: Vec<_> = made
        .into_iter()
        .map(|(name, cie, program)| {
            let frames = section(cie, program);
            (name, input(&index(&frames, FRAMES_ADDR), FRAMES_ADDR, CODE_ADDR + 5, &frames))
        })
        .collect();
    let frames = section(CIE, PROLOGUE);
    seeds.push(("unindexed", input(&[1, 0xFF, 0xFF, 0xFF], FRAMES_ADDR, CODE_ADDR, &frames)));
    seeds.extend(real().map(|seed| ("real", seed)));
    seeds
}

/// The beginning of this program's own tables, with an index made for it.
fn real() -> Option<Vec<u8>> {
    let file = fs::read(env::current_exe().ok()?).ok()?;
    let object = object::File::parse(&*file).ok()?;
    let section = object.section_by_name(".eh_frame")?;
    let frames = section.data().ok()?;
    let len = entries(frames).map(|(start, len)| start + len).take_while(|end| *end < MAX_REAL_LEN);
    let frames = [&frames[..len.last()?], &[0; 4]].concat();
    // The addresses are below 2 GiB in a program as it lies in its file.
    let first = starts(&frames, section.address()).next()?;
    Some(input(&index(&frames, section.address()), section.address(), first.1, &frames))
}

/// Three functions of 64 bytes with the same program, and the end.
fn section(cie: &[u8], program: &[u8]) -> Vec<u8> {
    let mut frames = cie.to_vec();
    // Those of signal frames have data of four bytes.
    let augmentation: &[u8] = if cie == SIGNAL_CIE { &[4, 0, 0, 0, 0] } else { &[0] };
    for i in 0..3 {
        let mut body = (frames.len() as u32 + 4).to_le_bytes().to_vec();
        let place = FRAMES_ADDR + frames.len() as u64 + 8;
        body.extend(((CODE_ADDR + 64 * i) as u32).wrapping_sub(place as u32).to_le_bytes());
        body.extend(64_u32.to_le_bytes());
        body.extend(augmentation);
        body.extend(program);
        frames.extend((body.len() as u32).to_le_bytes());
        frames.extend(body);
    }
    frames.extend([0; 4]);
    frames
}

/// Offset and length of each entry of a section.
fn entries(frames: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let len = u32::from_le_bytes(*frames.get(start..)?.first_chunk()?) as usize;
        let entry = (len != 0).then_some((start, len + 4));
        start += len + 4;
        entry
    })
}

/// Offset of each function's entry and the function's address, which is relative to itself.
fn starts(frames: &[u8], frames_addr: u64) -> impl Iterator<Item = (usize, u64)> {
    entries(frames).filter_map(move |(start, _)| {
        let field = |at: usize| Some(u32::from_le_bytes(*frames.get(at..)?.first_chunk()?));
        let place = frames_addr + start as u64 + 8;
        let function = place.wrapping_add_signed(i64::from(field(start + 8)? as i32));
        (field(start + 4)? != 0).then_some((start, function))
    })
}

/// An index of a section at `HEADER_ADDR`.
fn index(frames: &[u8], frames_addr: u64) -> Vec<u8> {
    let from_header = |addr: u64| (addr as u32).wrapping_sub(HEADER_ADDR as u32).to_le_bytes();
    let mut starts: Vec<_> = starts(frames, frames_addr).collect();
    starts.sort_by_key(|(_, function)| *function);
    let mut header = vec![1, 0x1B, 0x03, 0x3B];
    header.extend(from_header(frames_addr.wrapping_sub(4)));
    header.extend((starts.len() as u32).to_le_bytes());
    for (start, function) in starts {
        header.extend(from_header(function));
        header.extend(from_header(frames_addr + start as u64));
    }
    header
}

fn input(header: &[u8], frames_addr: u64, call_addr: u64, frames: &[u8]) -> Vec<u8> {
    let mut input = (header.len() as u16).to_le_bytes().to_vec();
    for word in [HEADER_ADDR, frames_addr, call_addr] {
        input.extend(word.to_le_bytes());
    }
    input.extend(header);
    input.extend(frames);
    input
}

/// Inputs of the target `walk`: rules, start, words.
pub(crate) fn stacks() -> Vec<(&'static str, Vec<u8>)> {
    // By the coding of the target: what a rule's first byte and a word's first byte mean.
    const FRAME_POINTER: [u8; 4] = [128, 0, 0, 0];
    const OUTERMOST: [u8; 4] = [232, 0, 0, 0];
    const CODE: u8 = 0;
    const STACK: u8 = 96;
    let interpreted = |to| [192, 8, to, 0];
    let sp_rule = |words: u8| [0, words - 1, 0, 0];
    let sp_rule_saving_fp = |words: u8| [2, words - 1, 0xFE, 0];
    let seed = |rules: &[[u8; 4]], start: [u8; 8], words: &[[u8; 2]]| {
        let mut input: Vec<u8> = rules.iter().cycle().take(16).flatten().copied().collect();
        input.extend(start);
        input.extend(words.as_flattened());
        input
    };
    // Program counter, stack pointer, frame pointer, size of the stack, length of the buffer.
    let start = [1, STACK, 0, STACK, 2, 63, 64, 0];
    let chain: Vec<_> =
        (0..60_u8).map(|i| if i % 2 == 0 { [STACK, i + 2] } else { [CODE, i % 16] }).collect();
    let calls: Vec<_> = (0..120_u8).map(|i| [CODE, i % 16]).collect();
    vec![
        ("frame-pointers", seed(&[FRAME_POINTER], start, &chain)),
        ("stack-pointers", seed(&[sp_rule(2), sp_rule(3), OUTERMOST], start, &calls)),
        ("mixed", seed(&[sp_rule_saving_fp(2), FRAME_POINTER], start, &chain)),
        ("interpreted", seed(&[0, 1, 2, 3].map(interpreted), start, &chain)),
        ("foreign", seed(&[FRAME_POINTER], [1, STACK, 0, STACK, 2, 0, 64, 1], &chain)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_beginning_of_a_real_section_is_among_the_seeds() {
        let seeds = tables();
        let (_, real) = seeds.iter().find(|(name, _)| *name == "real").unwrap();
        assert!(real.len() > MAX_REAL_LEN / 2);
    }

    #[test]
    fn an_index_leads_to_each_function() {
        let frames = section(CIE, PROLOGUE);
        let functions: Vec<_> = starts(&frames, FRAMES_ADDR).map(|(_, addr)| addr).collect();
        assert_eq!(functions, [CODE_ADDR, CODE_ADDR + 64, CODE_ADDR + 128]);
        assert_eq!(index(&frames, FRAMES_ADDR).len(), 12 + 3 * 8);
    }
}
