//! A stand-in for the agent: reads its settings from the private channel, says it is ready, then does what the
//! variable `STANDIN` asks for.
#![allow(clippy::disallowed_methods, reason = "a program of its own, which ends as the tests tell it to")]
#![allow(unsafe_code, reason = "descriptors by number")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "an example counts as a test here")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder};
use microsandbox_protocol::message::{Activity, Bootstrap, Kind, LogRecord, LogSync, Ready};

#[cfg(target_arch = "x86_64")]
mod calls;
mod escapes;

fn main() {
    // SAFETY: the runtime hands over the private channel under this number, and nothing else here uses it.
    let mut channel = unsafe { File::from_raw_fd(4) };
    let decoder = FrameDecoder::default();
    let mut buffer = BytesMut::new();
    let first = next(&decoder, &mut channel, &mut buffer).expect("no first frame").open().unwrap();
    assert_eq!(first.kind, Kind::Bootstrap);
    let settings: Bootstrap = first.parse().unwrap();
    let wanted = settings.env.iter().find_map(|v| v.strip_prefix("STANDIN=")).unwrap_or("").to_owned();
    if wanted == "silent" {
        loop {
            std::thread::park();
        }
    }
    if let Some(code) = wanted.strip_prefix("early-exit:") {
        eprintln!("the stand-in gives up");
        std::process::exit(code.parse().unwrap());
    }
    let ready = Ready { agent_version: Some("standin".into()), ..Ready::default() };
    channel.write_all(&frame::encode(0, Flags::NONE, &Kind::Ready, &ready).unwrap()).unwrap();
    act(&wanted, &mut channel);
    while let Some(frame) = next(&decoder, &mut channel, &mut buffer) {
        if frame.open().is_ok_and(|message| message.kind == Kind::Shutdown) {
            if wanted == "stubborn" {
                continue;
            }
            std::process::exit(0);
        }
    }
}

fn act(wanted: &str, channel: &mut File) {
    let (verb, argument) = wanted.split_once(':').unwrap_or((wanted, ""));
    match verb {
        "exit" => std::process::exit(argument.parse().unwrap()),
        "abort" => std::process::abort(),
        "hang-up" => {
            // SAFETY: the channel is not used after this.
            drop(unsafe { File::from_raw_fd(4) });
            loop {
                std::thread::park();
            }
        }
        "garbage" => channel.write_all(&[0xff; 64]).unwrap(),
        "running" => {
            let busy = Activity { seq: 1, running: 1 };
            channel.write_all(&frame::encode(0, Flags::NONE, &Kind::Activity, &busy).unwrap()).unwrap();
        }
        // As much output as the runtime takes, without an end.
        "pour" => {
            let piece = vec![b'x'; argument.parse().unwrap()];
            loop {
                log(channel, 1, 1, &piece);
            }
        }
        // Numbered lines, so that a missing byte shows.
        "lines" => {
            let text: String = (0..argument.parse::<u32>().unwrap()).map(|n| format!("line {n}\n")).collect();
            for chunk in text.as_bytes().chunks(100_003) {
                log(channel, 1, 1, chunk);
            }
            std::process::exit(0);
        }
        "eat" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        "escapes" => {
            log(channel, 8, 1, escapes::all().as_bytes());
            std::process::exit(0);
        }
        #[cfg(target_arch = "x86_64")]
        "calls" => {
            log(channel, 8, 1, calls::all().as_bytes());
            std::process::exit(0);
        }
        // One character a byte at a time, then bytes that are no text.
        "seams" => {
            for byte in "€uro ☃\n".as_bytes() {
                log(channel, 3, 1, &[*byte]);
            }
            log(channel, 4, 2, b"\xff\x00\xfe");
            log(channel, 5, 1, "é".as_bytes().split_last().unwrap().1);
            std::process::exit(0);
        }
        // Asks for the log to be complete, over and over, and reads no answer.
        "marks" => {
            let marks: Vec<u8> = (1..=1000)
                .flat_map(|number| frame::encode(0, Flags::NONE, &Kind::LogSync, &LogSync { number }).unwrap())
                .collect();
            for _ in 0..argument.parse::<u32>().unwrap() {
                channel.write_all(&marks).unwrap();
            }
            log(channel, 6, 1, b"asked\n");
        }
        "flood" => {
            let mebibytes: usize = argument.parse().unwrap();
            let chunk: Vec<u8> =
                std::iter::repeat_n(*b"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 abcdefghijklm\n", 1024)
                    .flatten()
                    .collect();
            for _ in 0..mebibytes * 16 {
                log(channel, 9, 1, &chunk);
            }
            std::process::exit(0);
        }
        // Runs a program as a sandbox would and logs what it says.
        "run" => {
            let output = std::process::Command::new("/bin/sh").args(["-c", argument]).output();
            match output {
                Ok(output) => {
                    log(channel, 7, 1, &output.stdout);
                    log(channel, 7, 2, &output.stderr);
                }
                Err(error) => log(channel, 7, 2, error.to_string().as_bytes()),
            }
            std::process::exit(0);
        }
        _ => {}
    }
}

fn log(channel: &mut File, session: u32, source: u8, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let record = LogRecord { source, time_ns: 1_700_000_000_000_000_000, data: data.to_vec() };
    channel.write_all(&frame::encode(session, Flags::NONE, &Kind::Log, &record).unwrap()).unwrap();
}

fn next(decoder: &FrameDecoder, channel: &mut File, buffer: &mut BytesMut) -> Option<frame::Frame> {
    loop {
        if let Some(frame) = decoder.decode(buffer).unwrap() {
            return Some(frame);
        }
        let mut room = [0; 4096];
        match channel.read(&mut room) {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&room[..count]),
        }
    }
}
