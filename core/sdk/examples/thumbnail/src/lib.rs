//! A small PNG of a JPEG or PNG image.
#![forbid(unsafe_code)]

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, GenericImageView as _, ImageEncoder as _, ImageReader, Limits};
use microfaas::{Error, Request, Response, checkpoint};

/// Longest side of a thumbnail unless the caller says.
const SIDE_DEFAULT: u32 = 128;
/// Longest side that a caller may ask for.
const SIDE_MAX: u32 = 1024;
/// Longest side of an image that is taken: 8 bytes a pixel must fit a call's memory.
const INPUT_SIDE_MAX: u32 = 8192;
const DECODED_BYTES_MAX: u64 = 64 << 20;

/// Scales the image in the body so that its longer side is `w` pixels, from the metadata or the query, 128 without; smaller
/// images keep their size. Answers a PNG.
#[microfaas::function]
pub fn thumbnail(request: Request<'_>) -> Result<Response, Error> {
    let side = side(&request)?;
    let image = decoded(request.body())?;
    checkpoint();
    let (width, height) = image.dimensions();
    let small = if width.max(height) > side { image.thumbnail(side, side) } else { image };
    checkpoint();
    let mut response = Response::in_place().with_header("content-type", "image/png");
    let encoder = PngEncoder::new(&mut response);
    let (width, height) = small.dimensions();
    if small.color().has_alpha() {
        encoder.write_image(small.into_rgba8().as_raw(), width, height, ExtendedColorType::Rgba8)?;
    } else {
        encoder.write_image(small.into_rgb8().as_raw(), width, height, ExtendedColorType::Rgb8)?;
    }
    Ok(response)
}

fn side(request: &Request<'_>) -> Result<u32, Error> {
    let parameter = request.query_param("w");
    let Some(text) = request.meta("w").or(parameter.as_deref()) else { return Ok(SIDE_DEFAULT) };
    let side = text.parse().ok().filter(|side| (1..=SIDE_MAX).contains(side));
    side.ok_or_else(|| Error::new(format!("w is not a number from 1 to {SIDE_MAX}")).with_status(400))
}

/// What is no image, or too large a one, is the caller's mistake.
fn decoded(bytes: &[u8]) -> Result<DynamicImage, Error> {
    let refused = |error: image::ImageError| Error::new(error).with_status(415);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(INPUT_SIDE_MAX);
    limits.max_image_height = Some(INPUT_SIDE_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    reader.decode().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../data/photo.jpg");
    const DRAWING: &[u8] = include_bytes!("../../data/drawing.png");

    fn size(response: &Response) -> (u32, u32) {
        assert_eq!(image::guess_format(response.body()).unwrap(), image::ImageFormat::Png);
        image::load_from_memory(response.body()).unwrap().dimensions()
    }

    #[test]
    fn the_longer_side_is_what_was_asked_for() {
        assert_eq!(size(&thumbnail(Request::new(PHOTO)).unwrap()), (128, 85));
        let by_meta = Request::new(PHOTO).with_meta(&[("w", "60"), (":path", "/fn/thumbnail?w=50")]);
        assert_eq!(size(&thumbnail(by_meta).unwrap()), (60, 40));
        let by_query = Request::new(PHOTO).with_meta(&[(":path", "/fn/thumbnail?w=30")]);
        assert_eq!(size(&thumbnail(by_query).unwrap()), (30, 20));
    }

    #[test]
    fn transparency_stays_and_small_images_do_not_grow() {
        let response = thumbnail(Request::new(DRAWING).with_meta(&[("w", "1024")])).unwrap();
        assert_eq!(size(&response), (320, 240));
        let corner = image::load_from_memory(response.body()).unwrap().get_pixel(0, 0);
        assert_eq!(corner.0[3], 0);
    }

    #[test]
    fn it_is_a_picture_of_the_same_thing() {
        let original = image::load_from_memory(PHOTO).unwrap();
        let small = image::load_from_memory(thumbnail(Request::new(PHOTO)).unwrap().body()).unwrap();
        // The sky, then the ground.
        for (x, y) in [(320, 40), (320, 400)] {
            let (a, b) = (original.get_pixel(x, y).0, small.get_pixel(x / 5, y / 5).0);
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 40), "{a:?} {b:?}");
        }
    }

    #[test]
    fn other_input_is_refused() {
        let status = |request| thumbnail(request).map(|_| ()).unwrap_err().status();
        assert_eq!(status(Request::new(b"GIF89a")), Some(415));
        assert_eq!(status(Request::new(&DRAWING[..2000])), Some(415));
        assert_eq!(status(Request::new(&PHOTO[..20])), Some(415));
        assert_eq!(status(Request::new(PHOTO).with_meta(&[("w", "0")])), Some(400));
        assert_eq!(status(Request::new(PHOTO).with_meta(&[("w", "wide")])), Some(400));
    }
}
