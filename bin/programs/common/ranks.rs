//! What a run needs before its ranks begin: the same configuration, a folder that all see, a card for each.

use std::path::Path;
use std::time::Duration;

use comm::{MpiJob, Ranks};
use rl::config::{Backend, Config};
use run::layout::RANKS;

use super::Failure;

/// How often a rank looks for what rank 0 has written: a network's file system may show it a little later.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The ranks of a run as `config` says; the only one where there is no job.
///
/// # Errors
/// Ranks whose configurations differ, or that do not see the same run folder.
pub(crate) fn join(job: Option<&MpiJob>, config: &Config) -> Result<Ranks, Failure> {
    let Some(job) = job else { return Ok(Ranks::solo()) };
    // Not checked before they are known to be told the same.
    let ranks = job.ranks(false);
    let texts = ranks.gather("configuration", &config.to_toml())?;
    if let Some(rank) = texts.iter().position(|text| *text != texts[0]) {
        let mut lines = texts[0].lines().zip(texts[rank].lines());
        let (first, other) = lines.find(|(a, b)| a != b).unwrap_or_default();
        return Err(Failure::input(format!(
            "the ranks do not have the same configuration: `{first}` on rank 0, `{other}` on rank {rank}"
        )));
    }
    share_folder(&ranks, &config.trainer.run_dir(), "trainer.output_dir")?;
    Ok(job.ranks(config.parallel.check))
}

/// Whether all ranks see what rank 0 writes to the folder that `option` names; it is made.
///
/// # Errors
/// The rank that does not.
pub(crate) fn share_folder(ranks: &Ranks, root: &Path, option: &str) -> Result<(), Failure> {
    if ranks.is_solo() {
        return Ok(());
    }
    let token = format!("{}-{}", std::process::id(), run::heartbeat::now());
    let folder = root.join(RANKS);
    let write = || {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(&token), &token))
            .map(|()| token.clone())
            .map_err(|error| format!("{}: {error}", folder.display()))
    };
    let token = ranks.from_first("run folder", write)?.map_err(Failure::other)?;
    let path = folder.join(&token);
    let seen = (0..LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
        std::fs::read_to_string(&path).is_ok_and(|text| text == token)
    });
    let all = ranks.gather("who sees the run folder", &seen)?;
    if ranks.is_first() {
        // What stays is overwritten by nobody, and does no harm.
        let _ = std::fs::remove_file(&path).and_then(|()| std::fs::remove_dir(&folder));
    }
    match all.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(rank) => Err(Failure::input(format!(
            "{option} is not shared between the ranks: rank {rank} does not see what rank 0 writes to {}; choose a \
             folder on a file system that all machines share",
            root.display()
        ))),
    }
}

/// Chooses the card of this rank where it will compute on CUDA: that of its number on the node. Its number among those
/// that the process sees; none where there are no other ranks, or no cards.
///
/// # Errors
/// Two ranks on one card.
#[cfg(feature = "cuda")]
pub(crate) fn choose_card(ranks: &Ranks, backend: Backend) -> Result<Option<usize>, Failure> {
    use super::cuda;
    if ranks.is_solo() {
        return Ok(None);
    }
    let wanted = matches!(backend, Backend::Auto | Backend::Cuda);
    let of_node = ranks.of_node("ranks of a node")?;
    let card = if wanted { cuda::choose(of_node.rank()) } else { None };
    let all = ranks.gather("cards", &card)?;
    for (rank, card) in all.iter().enumerate() {
        let Some(card) = card else { continue };
        if let Some(other) = all[..rank].iter().position(|other| other.as_ref() == Some(card)) {
            return Err(Failure::input(format!(
                "ranks {other} and {rank} have the same GPU, {card}: start no more ranks on a machine than it has \
                 GPUs, with mpirun --map-by ppr:8:node for 8 of them",
            )));
        }
    }
    Ok(card.is_some().then(cuda::chosen))
}

/// There are no cards to choose from.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
pub(crate) fn choose_card(_: &Ranks, _: Backend) -> Result<Option<usize>, Failure> {
    Ok(None)
}
