//! Tests of the program `malquery`, with one file per subject.

mod collect;
mod costs;
mod downloads;
mod errors;
mod files;
mod help;
mod lists;
mod offline;
mod output;
mod record;
mod refusals;
mod rules;
mod secrets;
mod serve;
mod signals;
mod state;
mod support;
mod terminal;
