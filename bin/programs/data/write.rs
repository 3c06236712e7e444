//! Writing a data set with a progress bar.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use data::convert::{ConvertWatcher, convert};
use data::write::JsonImages;
use data::{BadRow, Dataset};
use indicatif::ProgressBar;

use super::print;
use crate::common::{Failure, progress};

/// Rows left out of a file, named above the progress bar.
struct Converting {
    bar: ProgressBar,
    left_out: usize,
}

impl ConvertWatcher for Converting {
    fn row(&mut self) {
        self.bar.inc(1);
    }
    fn left_out(&mut self, row: &BadRow) {
        self.left_out += 1;
        self.bar.suspend(|| eprintln!("{}", guard::printable(&format!("left out: {row}"))));
    }
}

/// Writes the first `rows` rows, those left out aside.
pub(super) fn write(dataset: Dataset, rows: usize, output: &Path, images: JsonImages) -> Result<ExitCode, Failure> {
    let rows = rows.min(dataset.len());
    let mut converting = Converting { bar: progress::bar(rows), left_out: 0 };
    let written = convert(&Arc::new(dataset), rows, output, images, &mut converting)?;
    converting.bar.finish_and_clear();
    print(&format!("{}: {written} rows, {} left out\n", output.display(), converting.left_out))?;
    Ok(ExitCode::SUCCESS)
}
