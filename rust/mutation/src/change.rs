//! Changes to an input.

use super::MAX_INPUT;
use super::random::Random;

/// Changes of one input.
const MOST: usize = 6;
/// Archives are made of blocks of this size.
const BLOCK: usize = 512;
const NUMBERS: [&[u8]; 9] = [
    b"0",
    b"1",
    b"-1",
    b"4294967296",
    b"18446744073709551615",
    b"9223372036854775807",
    b"77777777777",
    b"1e999",
    b"\0\0\0\0",
];

/// One of the inputs, changed.
pub fn changed(pool: &[Vec<u8>], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut input = pool[random.below(pool.len())].clone();
    for _ in 0..=random.below(MOST) {
        change(&mut input, pool, words, random);
    }
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(12) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 if !input.is_empty() => input[at] = [0, 0x7f, 0x80, 0xff, b'/', b'.', b'"', b'\n'][random.below(8)],
        3 => input.insert(at, random.next() as u8),
        4 => {
            let until = (at + 1 + random.below(64)).min(input.len());
            input.drain(at.min(until)..until);
        }
        5 => input.truncate(at),
        6 => put(input, at, NUMBERS[random.below(NUMBERS.len())], random),
        7 | 8 if !words.is_empty() => put(input, at, words[random.below(words.len())], random),
        9 => {
            let other = &pool[random.below(pool.len())];
            let cut = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[cut..]);
        }
        10 => blocks(input, random),
        _ => {
            let piece = input[at..(at + 1 + random.below(200)).min(input.len()).max(at)].to_vec();
            if input.len() + piece.len() <= MAX_INPUT {
                input.splice(at..at, piece);
            }
        }
    }
}

/// Over what is there, or in between.
fn put(input: &mut Vec<u8>, at: usize, word: &[u8], random: &mut Random) {
    let until = if random.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
    input.splice(at..until, word.iter().copied());
}

/// Whole blocks change places, are repeated or left out.
fn blocks(input: &mut Vec<u8>, random: &mut Random) {
    let count = input.len() / BLOCK;
    if count < 2 {
        return;
    }
    let (from, to) = (random.below(count) * BLOCK, random.below(count) * BLOCK);
    let block = input[from..from + BLOCK].to_vec();
    match random.below(3) {
        0 => input[to..to + BLOCK].copy_from_slice(&block),
        1 if input.len() + BLOCK <= MAX_INPUT => {
            input.splice(to..to, block);
        }
        _ => {
            input.drain(from..from + BLOCK);
        }
    }
}
