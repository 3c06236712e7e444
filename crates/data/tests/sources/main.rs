//! Data sets as people have them: parquet of several shapes, JSON lines, folders of annotations, mixtures, damage.

mod columns;
mod damage;
mod json;
mod numbers;
mod reading;
mod support;
