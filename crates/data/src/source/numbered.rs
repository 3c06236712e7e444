//! Pictures in numbered columns, `image_1`, `image_2` and so on, as MMMU and MMMU-Pro have them.

use std::collections::BTreeMap;

use super::RowImages;

/// Higher numbers name no picture.
const MOST: usize = 1000;

/// The numbered columns among `names` that belong to `key`, by number: of `images` and of `image` those called
/// `image_1`, `image1`, `images_1` and the like.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>, key: &str) -> BTreeMap<usize, String> {
    let singular = key.strip_suffix('s').filter(|stem| !stem.is_empty());
    let number = |name: &str| {
        let behind = |stem: &str| name.strip_prefix(stem).map(|rest| rest.strip_prefix('_').unwrap_or(rest));
        let number = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit()).then(|| rest.parse().ok()).flatten();
        [Some(key), singular].into_iter().flatten().find_map(|stem| behind(stem).and_then(number))
    };
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(number) = number(name).filter(|number| *number <= MOST) {
            found.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    found
}

/// The pictures of a row by their number; `cell` reads the column of a name. Null columns leave their number out.
pub(super) fn collect<'a>(
    columns: impl Iterator<Item = &'a str>,
    key: &str,
    cell: impl Fn(&str) -> RowImages,
) -> RowImages {
    let mut images = Vec::new();
    for (number, name) in names(columns, key) {
        let mut found = cell(&name).map_err(|e| format!("`{name}`: {e}"))?;
        let image = match (found.pop().flatten(), found.len(), number) {
            (None, 0, _) => continue,
            (Some(_), 0, 0) => return Err(format!("`{name}`: numbered pictures are counted from 1")),
            (Some(image), 0, _) => image,
            (_, n, _) => return Err(format!("`{name}`: {} pictures where one is expected", n + 1)),
        };
        images.resize_with(images.len().max(number), || None);
        images[number - 1] = Some(image);
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_key() {
        let all = [
            "image_2",
            "image_10",
            "image_1",
            "image",
            "image_x",
            "image_1_size",
            "images_3",
            "image4",
            "images",
            "pic_1",
        ];
        let of = |key: &str| names(all.into_iter(), key).into_values().collect::<Vec<_>>();
        assert_eq!(of("images"), ["image_1", "image_2", "images_3", "image4", "image_10"]);
        assert_eq!(of("image"), ["image_1", "image_2", "image4", "image_10"]);
        assert_eq!(of("pic"), ["pic_1"]);
        assert!(names(["image_4000000000", "image_"].into_iter(), "image").is_empty());
    }
}
