//! The pictures that programs draw. Their files are included here and not tested in their library: as a test of its own that
//! would be compiled a second time, model and trainer included.
#![allow(dead_code)] // drawing is used by the programs

#[path = "../bin/programs/common/focus_map.rs"]
mod focus_map;
#[path = "../bin/programs/common/sheet.rs"]
mod sheet;
