//! What a reward sees of the rows: their prompts, columns and pictures.

use std::fs;

use data::ImageSource;
use reward::{Reward, RewardRow};
use tempfile::TempDir;

use crate::error::TrainError;
use crate::prompts::Item;

/// One for each row, as long as their pictures are on the disk.
pub(crate) struct RewardRows {
    rows: Vec<RewardRow>,
    /// Holds the pictures that were written for this batch.
    _written: Option<TempDir>,
}

impl RewardRows {
    /// The rows as the reward wants to see them: none where it looks at answers alone.
    ///
    /// # Errors
    /// A picture that cannot be written.
    pub(crate) fn of(items: &[Item], reward: &Reward) -> Result<Self, TrainError> {
        if !reward.sees_rows() {
            return Ok(Self { rows: vec![], _written: None });
        }
        let fail =
            |e: std::io::Error| TrainError::Input(format!("reward.write_images: a picture cannot be written: {e}"));
        let is_written = reward.writes_images() && items.iter().any(|item| !item.images.is_empty());
        let folder = is_written.then(|| tempfile::Builder::new().prefix("visual-rl-pictures").tempdir());
        let folder = folder.transpose().map_err(fail)?;
        let mut rows = Vec::with_capacity(items.len());
        for (row, item) in items.iter().enumerate() {
            let mut images = Vec::with_capacity(item.images.len());
            for (number, image) in item.images.iter().enumerate() {
                match (image, &folder) {
                    (ImageSource::Path(path), _) => images.push(path.clone()),
                    (ImageSource::Bytes(bytes), Some(folder)) => {
                        let path = folder.path().join(format!("{row}_{number}.{}", extension(bytes)));
                        fs::write(&path, bytes).map_err(fail)?;
                        images.push(path);
                    }
                    (ImageSource::Bytes(_), None) => {}
                }
            }
            rows.push(RewardRow { prompt: item.problem.clone(), columns: item.columns.clone(), images });
        }
        Ok(Self { rows, _written: folder })
    }

    /// That of the `index`-th row.
    pub(crate) fn get(&self, index: usize) -> Option<&RewardRow> {
        self.rows.get(index)
    }
}

/// The ending of a picture's name, by how it begins.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xFF, 0xD8, ..] => "jpg",
        [b'G', b'I', b'F', ..] => "gif",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        [b'B', b'M', ..] => "bmp",
        _ => "tiff",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use reward::{RewardConfig, Score};

    fn item(images: Vec<ImageSource>) -> Item {
        Item {
            row: 0,
            id: "a".into(),
            problem: "how many?".into(),
            answer: "3".into(),
            solution: None,
            task: None,
            columns: [("level".to_string(), "2".to_string())].into(),
            prompt: policy::Prompt {
                input_ids: vec![],
                position_ids: Default::default(),
                pixel_values: Default::default(),
                image_grid_thw: vec![],
            },
            images,
            holder: 0,
            known_content: None,
        }
    }

    #[test]
    fn pictures_are_files_where_they_are_or_where_it_is_asked_for() {
        let png: ImageSource = ImageSource::Bytes(vec![0x89, b'P', b'N', b'G', 1].into());
        let items = [item(vec![ImageSource::Path(PathBuf::from("a.jpg")), png])];
        let config =
            |write_images| RewardConfig { command: vec!["true".into()], write_images, ..RewardConfig::default() };
        let reward = Reward::new(&config(false)).unwrap();
        let rows = RewardRows::of(&items, &reward).unwrap();
        let row = rows.get(0).unwrap();
        assert_eq!((row.prompt.as_str(), row.columns["level"].as_str()), ("how many?", "2"));
        assert_eq!(row.images, [PathBuf::from("a.jpg")]);

        let rows = RewardRows::of(&items, &Reward::new(&config(true)).unwrap()).unwrap();
        let written = rows.get(0).unwrap().images[1].clone();
        assert_eq!(fs::read(&written).unwrap(), [0x89, b'P', b'N', b'G', 1]);
        assert!(written.to_string_lossy().ends_with(".png"));
        drop(rows);
        assert!(!written.exists(), "it is removed with the batch");

        // The built-in rules look at answers alone, a function of Rust's at everything.
        assert!(RewardRows::of(&items, &Reward::new(&RewardConfig::default()).unwrap()).unwrap().get(0).is_none());
        assert!(RewardRows::of(&items, &Reward::from_fn(|_| Score::default())).unwrap().get(0).is_some());
    }
}
