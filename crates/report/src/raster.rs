//! Pixels of the drawings of this crate.

use data::ImageError;
use image::RgbImage;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{ImageHrefResolver, Options, Tree};

use crate::fonts::Fonts;

/// Draws an SVG that this crate wrote. Pictures that lie in other files are not read.
///
/// # Errors
/// A file that is no SVG, a picture without pixels or of too many.
pub(crate) fn pixels(svg: &str, fonts: &Fonts) -> Result<RgbImage, ImageError> {
    let fail = |reason: String| ImageError::Limits(format!("the drawing cannot be turned into pixels: {reason}"));
    let hrefs = ImageHrefResolver { resolve_string: Box::new(|_, _| None), ..ImageHrefResolver::default() };
    let options = Options {
        fontdb: fonts.database(),
        font_resolver: fonts.resolver(),
        image_href_resolver: hrefs,
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| fail(error.to_string()))?;
    let size = tree.size().to_int_size();
    let mut pixmap = Pixmap::new(size.width(), size.height()).ok_or_else(|| fail(format!("{size:?}")))?;
    resvg::render(&tree, Transform::identity(), &mut pixmap.as_mut());
    // The paper covers everything, so that alpha is 255 and the colours are as they are.
    let bytes = pixmap.data().as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    RgbImage::from_raw(size.width(), size.height(), bytes).ok_or_else(|| fail(format!("{size:?}")))
}
