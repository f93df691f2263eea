//! Real programs, compiled with rustc as users compile theirs, and asked for the names of addresses
//! that the programs themselves print.

#![cfg(target_os = "linux")]

mod built;

mod damaged;
mod files;
mod names;
mod separate;
