//! Files beneath a root that a hostile party filled, and may be changing. Every function works on descriptors; none
//! recurses, and none holds more descriptors or memory because a tree is deep or wide.
//!
//! | module | holds |
//! |---|---|
//! | [`open`], [`by_hand`] | the one resolver of paths beneath a root, with `openat2` and without |
//! | [`named`] | a path of this machine as its user named it, resolved once |
//! | [`make`] | directories and files made beneath a root |
//! | [`walk`] | the one walk through a tree |
//! | [`remove`] | the one removal of a tree |
//! | [`tar`] | the one reader of tar archives, which refuses what two readers could read differently |
//! | [`pack`], [`unpack`] | a tree as an archive, an archive as a tree |
//! | [`replace`] | a file that appears complete under its name |
//! | [`attributes`] | what is taken over of modes, times and attributes |
#![forbid(unsafe_code)]

pub mod attributes;
pub mod by_hand;
pub mod make;
pub mod named;
pub mod open;
pub mod pack;
pub mod remove;
pub mod replace;
pub mod tar;
pub mod unpack;
pub mod walk;
