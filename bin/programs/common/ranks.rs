//! What a run needs before its ranks begin: the same configuration, a folder that all see, a card for each.

use std::path::Path;
use std::time::Duration;

use comm::{Job, Ranks};
use rl::config::Config;
use run::layout::RANKS;

use super::Failure;

/// How often a rank looks for what rank 0 has written: a network's file system may show it a little later.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The ranks of a run as `config` says; the only one where there is no job.
///
/// # Errors
/// Ranks whose configurations differ, or that do not see the same run folder.
pub(crate) fn join(job: Option<&Job>, config: &Config) -> Result<Ranks, Failure> {
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
    share_folder(&ranks, job.node(), &config.trainer.run_dir())?;
    Ok(job.ranks(config.parallel.check))
}

/// Whether all ranks see what rank 0 writes to the run folder.
fn share_folder(ranks: &Ranks, node: &str, root: &Path) -> Result<(), Failure> {
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
    let all = ranks.gather("who sees the run folder", &(seen, node.to_owned()))?;
    if ranks.is_first() {
        // What stays is overwritten by nobody, and does no harm.
        let _ = std::fs::remove_file(&path);
    }
    match all.iter().enumerate().find(|(_, (seen, _))| !seen) {
        None => Ok(()),
        Some((rank, (_, node))) => Err(Failure::input(format!(
            "trainer.output_dir is not shared between the ranks: rank {rank} ({node}) does not see what rank 0 writes \
             to {}; choose a folder on a file system that all nodes share",
            root.display()
        ))),
    }
}

/// Chooses the card of this rank where it will compute on CUDA: that of its number on the node.
///
/// # Errors
/// Two ranks on one card.
#[cfg(feature = "cuda")]
pub(crate) fn choose_card(ranks: &Ranks, job: Option<&Job>, backend: rl::config::Backend) -> Result<(), Failure> {
    use super::cuda;
    let Some(job) = job else { return Ok(()) };
    let wanted = matches!(backend, rl::config::Backend::Auto | rl::config::Backend::Cuda);
    let of_node = ranks.of_node("ranks of a node")?;
    let card = if wanted { cuda::choose(of_node.rank()) } else { None };
    let all = ranks.gather("cards", &(job.node().to_owned(), card))?;
    for (rank, (node, card)) in all.iter().enumerate() {
        let same = |(_, other): &(usize, &(String, Option<String>))| card.is_some() && other.1 == *card;
        if let Some((other, _)) = all[..rank].iter().enumerate().find(|pair| same(&(pair.0, pair.1))) {
            return Err(Failure::input(format!(
                "ranks {other} and {rank} ({node}) have the same GPU, {}: start no more ranks on a node than it has \
                 GPUs, with mpirun --map-by ppr:8:node for 8 of them",
                card.as_deref().unwrap_or_default()
            )));
        }
    }
    Ok(())
}

/// There are no cards to choose from.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
pub(crate) fn choose_card(_: &Ranks, _: Option<&Job>, _: rl::config::Backend) -> Result<(), Failure> {
    Ok(())
}
