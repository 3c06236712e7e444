//! What tells the weights of one model folder from those of another, without reading all of them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use policy::ModelError;

/// Places of a file that are looked at, and bytes of each.
const PLACES: u64 = 64;
const BYTES: u64 = 4096;

/// A hash of the sizes of the `.safetensors` files of a folder and of 64 places of each, the head of the file and its
/// end among them: 16 hexadecimal digits. Other weights of the same shapes have another one, wherever they lie.
///
/// # Errors
/// A folder or a file that cannot be read.
pub fn fingerprint(folder: &Path) -> Result<String, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(ModelError::io(folder))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(ModelError::io(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for path in files {
        hash_file(&path, &mut hash).map_err(ModelError::io(&path))?;
    }
    Ok(format!("{hash:016x}"))
}

fn hash_file(path: &Path, hash: &mut u64) -> std::io::Result<()> {
    let mut file: File = guard::file::open(path)?;
    let size = file.metadata()?.len();
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    };
    add(&size.to_le_bytes());
    let last = size.saturating_sub(BYTES);
    let mut piece = vec![0; BYTES.min(size) as usize];
    for place in 0..PLACES {
        file.seek(SeekFrom::Start(
            last / (PLACES - 1) * place + if place + 1 == PLACES { last % (PLACES - 1) } else { 0 },
        ))?;
        file.read_exact(&mut piece)?;
        add(&piece);
    }
    Ok(())
}
