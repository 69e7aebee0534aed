//! The protocol from outside: one binary, a module for each subject.

mod hostile_frames;
mod round_trips;
