//! The toy world: problems over pictures that a model of a million parameters can learn, made on demand.
//!
//! `toy:sum?rows=2&cols=2&split=train&size=10000&seed=1` is a data source like any file: row `i` is a function of the
//! spec and `i` alone. Pictures are real PNG bytes and go through the production decoder.
//!
//! | task | picture | problem | response |
//! |---|---|---|---|
//! | `read` | grid of digits | `read?` | `<think>59, 88</think>\boxed{5988}` |
//! | `sum` | grid of digits | `sum?` | `<think>5+9=14, 14+8=22, 22+8=30</think>\boxed{30}` |
//! | `sum?questions=2` | grid of digits | `ann has 7 pens. sum + largest?` | `<think>5+9=14, ..., largest of 5988 is 9, 30+9=39</think>\boxed{39}` |
//! | `compare` | grid of digits | `larger row?` | `<think>1: 5+9=14, 2: 8+8=16</think>\boxed{2}` |
//! | `count` | grid of coloured shapes | `red circles?` | `<think>1: 2, 2: 0, 2+0=2</think>\boxed{2}` |
//! | `chart` | bar chart | `red+blue?` | `<think>red 3, blue 5, 3+5=8</think>\boxed{8}` |
//! | `multistep` | larger grid of digits | `tom has 3 cats. row 1 + col 2?` | one sum per line, then the sum of sums |
//! | `multistep?digits=partly&told=1` | larger grid of digits | `1: 5??, 2: 8??, 3: 1??. row 1 + col 1?` | the same |
//! | `multistep?digits=text` | none | `1: 598, 2: 807, 3: 114. row 1 + col 2?` | the same |

pub mod digits;
pub mod draw;
mod files;
mod multistep;
mod spec;
mod tasks;

pub use files::{ToyIds, special_ids, write_processor_files};
pub use multistep::{GridReading, ReadDigit};
pub use spec::{Digits, ToySource, ToySpec};
pub use tasks::{TASKS, ToyProblem, ToyTask};
