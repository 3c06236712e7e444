//! The rollout engine: what is sampled depends on the prompt, its key and the seed, and on nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{difference, mixed_prompts, model, pairs, rollout, sample, score};
use ::vgpo::PrototypeMode;
use burn::tensor::{Tensor, backend::Backend};
use model_qwen2vl::model::{Images, PackedBatch, Prompt, int_tensor};
use model_qwen2vl::{Kernels, ParamVisitor, QwenVl, Shard};
use rl::image_cache::ImageCache;
use rl::learn::{GroupRef, ScoreRequest};
use rl::rollout::{
    EngineConfig, Event, FinishReason, Job, RequestError, Response, ResponseLimits, RolloutConfig, RolloutEngine,
    RolloutRequest, generate,
};
use rl::sampler::Sampling;

fn refs(prompts: &[Prompt]) -> Vec<&Prompt> {
    prompts.iter().collect()
}

fn ids(responses: &[Vec<Response>]) -> Vec<Vec<&[u32]>> {
    responses.iter().map(|group| group.iter().map(|r| &r.ids[..]).collect()).collect()
}

/// Rows at a time, prefill budget, order of the prompts, company in the batch, focus on or off: the same responses.
fn company_changes_nothing<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let config = rollout(&model, 3, 24);
    let expected = sample(&model, &refs(&prompts), &config);
    let lengths: Vec<usize> = expected.iter().flatten().map(|r| r.ids.len()).collect();
    assert!(lengths.iter().any(|&l| l < 24) && lengths.contains(&24), "responses of several lengths: {lengths:?}");
    assert_eq!(lengths.len(), 3 * prompts.len(), "{lengths:?}");
    let check = |name: &str, got: &[Vec<Response>], expected: &[&Vec<Response>]| {
        for (got, expected) in pairs(got, expected).flat_map(|(got, expected)| pairs(got, *expected)) {
            assert_eq!((&got.ids, got.finish), (&expected.ids, expected.finish), "{name}");
            assert_eq!(got.log_probs.len(), got.ids.len(), "{name}");
            let d = difference(&got.log_probs, &expected.log_probs);
            assert!(d < 1e-4, "{name}: log-probs differ by {d}");
        }
    };
    let all: Vec<&Vec<Response>> = expected.iter().collect();
    for (max_batch_rows, prefill_token_budget) in [(1, 1), (3, 1), (4, 30), (7, 4096), (9, 50), (1000, 40)] {
        for focus in [None, Some(PrototypeMode::Mean)] {
            let config = RolloutConfig { max_batch_rows, prefill_token_budget, focus, ..config.clone() };
            check(
                &format!("{max_batch_rows} rows, {prefill_token_budget} tokens, focus {focus:?}"),
                &sample(&model, &refs(&prompts), &config),
                &all,
            );
        }
    }
    // Each prompt keeps its key.
    for order in [vec![4, 3, 2, 1, 0], vec![2, 0, 4, 1, 3], vec![1], vec![3, 0]] {
        let jobs: Vec<Job> = order.iter().map(|&i| Job { prompt: &prompts[i], key: i as u64 }).collect();
        let got = generate(&model, &jobs, &config, &mut ImageCache::default(), &AtomicBool::new(false), |_, _, _| {})
            .unwrap()
            .0;
        check(&format!("order {order:?}"), &got, &order.iter().map(|&i| &expected[i]).collect::<Vec<_>>());
    }
    // Fewer responses are the first of more.
    let fewer = sample(&model, &refs(&prompts), &RolloutConfig { n: 2, ..config.clone() });
    for (fewer, more) in pairs(ids(&fewer), ids(&expected)) {
        assert_eq!((fewer.len(), more.len()), (2, 3));
        assert_eq!(fewer[..], more[..2]);
    }
    let other = RolloutConfig { sampling: Sampling { seed: 6, ..config.sampling.clone() }, ..config };
    assert_ne!(ids(&sample(&model, &refs(&prompts), &other)), ids(&expected), "another seed samples something else");
}

/// Where half of all tokens end a response none ends within `min_new_tokens` tokens, and some right after them.
fn no_end_before_the_minimum<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let vocab = launch::toy_config().unwrap().text.vocab_size as u32;
    let config = RolloutConfig { min_new_tokens: 3, eos: (0..vocab / 2).collect(), ..rollout(&model, 4, 9) };
    let all = sample(&model, &prompts.iter().collect::<Vec<_>>(), &config);
    let lengths: Vec<usize> = all.iter().flatten().map(|response| response.ids.len()).collect();
    assert_eq!(lengths.iter().min(), Some(&4), "{lengths:?}");
}

fn lengths_and_ends<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    for (min_new_tokens, max_new_tokens, focus) in
        [(0, 1, None), (0, 5, None), (4, 9, None), (9, 9, None), (3, 70, Some(PrototypeMode::Mean))]
    {
        let config = RolloutConfig { min_new_tokens, max_new_tokens, focus, ..rollout(&model, 4, 0) };
        let mut seen = Vec::new();
        let jobs: Vec<Job> = prompts.iter().map(|prompt| Job { prompt, key: 1 }).collect();
        let (got, stats) = generate(
            &model,
            &jobs,
            &config,
            &mut ImageCache::default(),
            &AtomicBool::new(false),
            |job, response, id| seen.push((job, response, id)),
        )
        .unwrap();
        for (job, group) in got.iter().enumerate() {
            assert_eq!(group.len(), 4);
            for (i, response) in group.iter().enumerate() {
                let end = config.eos.contains(response.ids.last().unwrap());
                let len = response.ids.len();
                assert!(
                    response.ids[..len - 1].iter().all(|id| !config.eos.contains(id)),
                    "an end token inside a response"
                );
                assert!((!end || len > min_new_tokens) && len <= max_new_tokens, "{len} tokens");
                assert_eq!(response.finish, if end { FinishReason::Stop } else { FinishReason::Length });
                assert!(end || len == max_new_tokens);
                assert_eq!(response.log_probs.len(), len);
                let has_image = !prompts[job].image_grid_thw.is_empty();
                let focus = response.visual_focus.as_ref().map(Vec::len);
                assert_eq!(focus, (config.focus.is_some() && has_image).then_some(len));
                let streamed: Vec<u32> = seen.iter().filter(|s| (s.0, s.1) == (job, i)).map(|s| s.2).collect();
                assert_eq!(streamed, response.ids);
            }
        }
        assert_eq!(stats.response_tokens, got.iter().flatten().map(|r| r.ids.len()).sum::<usize>());
        assert_eq!(stats.prompt_tokens, prompts.iter().map(Prompt::len).sum::<usize>());
    }
    let nothing = RolloutConfig { max_new_tokens: 0, ..rollout(&model, 2, 0) };
    assert!(sample(&model, &refs(&prompts), &nothing).iter().flatten().all(|r| r.ids.is_empty()));
    assert!(sample(&model, &[], &rollout(&model, 2, 4)).is_empty());
}

/// Makes one token the likeliest after a given hidden state.
struct Favour(usize, Vec<f32>);

impl<B: Backend> ParamVisitor<B> for Favour {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if name == "model.embed_tokens.weight" {
            let [vocab, d] = [tensor.dims()[0], tensor.dims()[1]];
            let row = Tensor::<B, 1>::from_floats(&self.1[..], &tensor.device()).reshape([1, d]).mul_scalar(2.0);
            let table = tensor.clone().reshape([vocab, d]).slice_assign([self.0..self.0 + 1, 0..d], row);
            *tensor = table.reshape(tensor.shape());
        }
    }
}

fn last_state<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, response: &[u32]) -> Tensor<B, 2> {
    let device = model.device();
    let responses = if response.is_empty() { vec![] } else { vec![response] };
    let batch = PackedBatch::new(&model.config, &[(prompt, responses)], &device);
    let images = Images::new(&model.config, [prompt], &device);
    model.hidden(&batch, images.map(|i| model.encode_images(&i))).select(0, int_tensor([batch.tokens - 1], &device))
}

fn vision_tokens_are_never_sampled<B: Kernels>() {
    let mut model = model::<B>();
    let prompt = mixed_prompts(&model).remove(0);
    let state: Vec<f32> = last_state(&model, &prompt, &[]).into_data().to_vec().unwrap();
    let pad = model.config.image_token_id;
    // In the prompt the image features stand in the place of this row, so the state stays what it was.
    model.visit(&mut Favour(pad as usize, state));
    let config = rollout(&model, 4, 12);
    let free = RolloutConfig { suppress: vec![], ..config.clone() };
    for sampling in [Sampling::greedy(), config.sampling.clone(), Sampling { top_p: 0.5, ..config.sampling.clone() }] {
        let first = |config: &RolloutConfig| -> Vec<u32> {
            let config = RolloutConfig { sampling: sampling.clone(), ..config.clone() };
            sample(&model, &[&prompt], &config)[0].iter().map(|r| r.ids[0]).collect()
        };
        assert_eq!(first(&free), [pad; 4], "without the mask it is what the model wants to say");
        assert!(!first(&config).contains(&pad));
        let masked = RolloutConfig { sampling: sampling.clone(), min_new_tokens: 3, ..config.clone() };
        let got = sample(&model, &[&prompt], &masked);
        assert!(got[0].iter().flat_map(|r| &r.ids).all(|id| !config.suppress.contains(id)));
        assert!(got[0].iter().flat_map(|r| &r.log_probs).all(|l| l.is_finite()));
    }
}

/// What the sampler reports is what scoring computes, at any temperature and however the responses end.
fn log_probs_and_focus_are_those_of_scoring<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    for (temperature, focus, max_batch_rows) in [
        (1.0, None, 64),
        (0.7, None, 64),
        (1.0, Some(PrototypeMode::Mean), 64),
        (1.0, Some(PrototypeMode::PerImage), 8),
        (0.7, None, 7),
    ] {
        let sampling = Sampling { temperature, top_p: 1.0, seed: 11 };
        let config = RolloutConfig { sampling, focus, max_batch_rows, ..rollout(&model, 4, 20) };
        let got = sample(&model, &refs(&prompts), &config);
        let groups: Vec<GroupRef> = pairs(&prompts, &got)
            .map(|(prompt, group)| GroupRef { prompt, responses: group.iter().map(|r| &r.ids[..]).collect() })
            .collect();
        let scores = score(
            &model,
            &mut ImageCache::default(),
            &groups,
            &ScoreRequest { temperature, entropy: false, focus, dependency: false, token_budget: 200 },
        );
        let (mut log_prob, mut rho) = (0f32, 0f32);
        for (response, score) in pairs(&got, &scores).flat_map(|(group, scores)| pairs(group, scores)) {
            log_prob = log_prob.max(difference(&response.log_probs, &score.log_probs));
            assert_eq!(response.visual_focus.is_some(), score.visual_focus.is_some());
            if let (Some(a), Some(b)) = (&response.visual_focus, &score.visual_focus) {
                rho = rho.max(difference(a, b));
            }
        }
        println!("temperature {temperature}, focus {focus:?}: log-probs differ by {log_prob:.1e}, focus by {rho:.1e}");
        assert!(
            log_prob < 1e-4 && rho < 1e-5,
            "temperature {temperature}, focus {focus:?}, {max_batch_rows} rows: log-probs {log_prob}, focus {rho}"
        );
    }
}

/// Greedy decoding with the cache against the whole sequence computed anew for each token.
fn greedy_is_the_argmax_of_a_full_forward<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let config = RolloutConfig { sampling: Sampling::greedy(), ..rollout(&model, 1, 10) };
    let got = sample(&model, &refs(&prompts), &config);
    for (prompt, group) in pairs(&prompts, &got) {
        let response = &group[0];
        assert!(!response.ids.is_empty());
        for t in 0..response.ids.len() {
            let logits: Vec<f32> =
                model.logits(last_state(&model, prompt, &response.ids[..t])).into_data().to_vec().unwrap();
            let best = (0..logits.len() as u32)
                .filter(|id| !config.suppress.contains(id))
                .max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]));
            assert_eq!(Some(response.ids[t]), best, "token {t}");
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let log_sum = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f32>().ln();
            let expected = logits[response.ids[t] as usize] - log_sum;
            assert!((response.log_probs[t] - expected).abs() < 1e-4);
        }
    }
}

fn an_interrupt_stops_it<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let config = rollout(&model, 2, 1000);
    let jobs: Vec<Job> = prompts.iter().map(|prompt| Job { prompt, key: 0 }).collect();
    let flag = AtomicBool::new(false);
    let mut tokens = 0;
    let result = generate(&model, &jobs, &config, &mut ImageCache::default(), &flag, |_, _, _| {
        tokens += 1;
        flag.store(tokens >= 20, Ordering::Relaxed);
    });
    assert!(result.is_err());
    assert!((20..20 + 2 * prompts.len()).contains(&tokens), "it stops at the next token: {tokens}");
}

const ROOM: EngineConfig = EngineConfig {
    max_batch_rows: 64,
    prefill_token_budget: 4096,
    max_new_tokens: 40,
    max_prompt_tokens: 1000,
    max_request_rows: 4,
    read_every: 64,
};

fn request<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, key: u64) -> RolloutRequest {
    let config = rollout(model, 2, 12);
    let limits = ResponseLimits {
        max_new_tokens: config.max_new_tokens,
        min_new_tokens: 0,
        eos: config.eos.into(),
        suppress: config.suppress.into(),
    };
    RolloutRequest {
        prompt: prompt.clone(),
        key,
        n: config.n,
        sampling: config.sampling,
        limits,
        focus: None,
        top_log_probs: 0,
    }
}

/// Requests with settings of their own, drawn from `seed`; each has its place as key.
fn random_requests<B: Kernels>(model: &QwenVl<B>, seed: u64) -> Vec<RolloutRequest> {
    let prompts = mixed_prompts(model);
    let count = 8;
    (0..count)
        .map(|key| {
            let draw = |what: u64, choices: usize| {
                (f64::from(rl::sampler::uniform(seed, key, what, 0)) * choices as f64) as usize % choices
            };
            let mut request = request(model, &prompts[draw(0, prompts.len())], key);
            request.n = 1 + draw(1, 3);
            request.sampling = Sampling {
                temperature: [0.0, 0.5, 1.0, 1.7][draw(2, 4)],
                top_p: [1.0, 0.9, 0.4][draw(3, 3)],
                seed: 40 + draw(4, 2) as u64,
            };
            request.limits.max_new_tokens = [1, 6, 17, 33][draw(5, 4)];
            request.limits.min_new_tokens = [0, 0, 5][draw(6, 3)].min(request.limits.max_new_tokens);
            if draw(7, 3) == 0 {
                request.limits.suppress = request.limits.suppress.iter().copied().chain(10..20).collect();
            }
            request.focus = [None, Some(PrototypeMode::Mean), Some(PrototypeMode::PerImage)][draw(8, 3)];
            request
        })
        .collect()
}

/// Submits `requests[order[i]]` before step `at[i]` and steps until all is done; the responses by key.
fn run<B: Kernels>(
    model: &QwenVl<B>,
    requests: &[RolloutRequest],
    order: &[(usize, usize)],
    config: EngineConfig,
) -> BTreeMap<u64, Vec<Response>> {
    let mut engine = RolloutEngine::new(config, ImageCache::new(1.0), 7);
    let (mut keys, mut out, mut streamed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut left = order.to_vec();
    for step in 0.. {
        left.retain(|&(at, which)| {
            let now = at <= step;
            if now {
                keys.insert(engine.submit(requests[which].clone()), &requests[which]);
            }
            !now
        });
        for event in engine.step(model).unwrap() {
            match event {
                Event::Token { request, response, id, finish } => {
                    let ids: &mut (Vec<u32>, Option<FinishReason>) = streamed.entry((request, response)).or_default();
                    assert_eq!(ids.1, None, "a token behind the last");
                    ids.0.push(id);
                    ids.1 = finish;
                }
                Event::Finished { request, response, content, policy_version } => {
                    assert_eq!(policy_version, 7);
                    assert_eq!(streamed[&(request, response)], (content.ids.clone(), Some(content.finish)));
                    let group: &mut BTreeMap<usize, Response> = out.entry(keys[&request].key).or_default();
                    assert!(group.insert(response, content).is_none(), "finished twice");
                }
                Event::Done { request } => assert_eq!(out[&keys[&request].key].len(), keys[&request].n),
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
        if left.is_empty() && engine.is_idle() {
            break;
        }
        assert!(step < 2000, "it never ends");
    }
    out.into_iter().map(|(key, group)| (key, group.into_values().collect())).collect()
}

/// Requests with settings of their own get the same responses alone, together, in any order, and while others run.
fn requests_do_not_notice_one_another<B: Kernels>() {
    let model = model::<B>();
    for seed in 0..3 {
        let requests = random_requests(&model, seed);
        let alone: BTreeMap<u64, Vec<Response>> =
            (0..requests.len()).flat_map(|i| run(&model, &requests, &[(0, i)], ROOM)).collect();
        assert_eq!(alone.len(), requests.len());
        let at = |of: &dyn Fn(usize) -> usize| (0..requests.len()).map(|i| (of(i), i)).collect::<Vec<_>>();
        let backwards: Vec<(usize, usize)> = at(&|_| 0).into_iter().rev().collect();
        let orders = [
            ("at once", at(&|_| 0)),
            ("backwards", backwards),
            ("one after the other", at(&|i| 40 * i)),
            ("while others run", at(&|i| (i * 5 + seed as usize) % 11)),
        ];
        for (name, order) in &orders {
            for (max_batch_rows, read_every) in [(64, 64), (5, 1), (1, 3)] {
                let config = EngineConfig { max_batch_rows, read_every, ..ROOM };
                let got = run(&model, &requests, order, config);
                let name = format!("seed {seed}, {name}, {max_batch_rows} rows");
                assert_eq!(got.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>(), "{name}");
                for (key, expected) in &alone {
                    for (got, expected) in pairs(&got[key], expected) {
                        assert_eq!((&got.ids, got.finish), (&expected.ids, expected.finish), "{name}, key {key}");
                        assert_eq!(got.log_probs.len(), got.ids.len());
                        let d = difference(&got.log_probs, &expected.log_probs);
                        assert!(d < 1e-5, "{name}, key {key}: log-probs differ by {d}");
                        let focus = |r: &Response| r.visual_focus.clone().unwrap_or_default();
                        let d = difference(&focus(got), &focus(expected));
                        assert!(d < 1e-5, "{name}, key {key}: focus differs by {d}");
                    }
                }
            }
        }
        // What each asks for, it gets.
        for request in &requests {
            for response in &alone[&request.key] {
                let len = response.ids.len();
                assert!(len >= request.limits.min_new_tokens.max(1) && len <= request.limits.max_new_tokens);
                assert!(response.ids.iter().all(|id| !request.limits.suppress.contains(id)));
                let looks = request.focus.is_some() && !request.prompt.image_grid_thw.is_empty();
                assert_eq!(response.visual_focus.as_ref().map(Vec::len), looks.then_some(len));
            }
        }
    }
}

fn cancelled_requests_are_gone<B: Kernels>() {
    let model = model::<B>();
    let mut requests = random_requests(&model, 1);
    requests.iter_mut().for_each(|r| r.limits.max_new_tokens = 30);
    let expected = run(&model, &requests, &(0..8).map(|i| (0, i)).collect::<Vec<_>>(), ROOM);
    for when in [0, 1, 4] {
        let mut engine = RolloutEngine::new(EngineConfig { max_batch_rows: 9, ..ROOM }, ImageCache::default(), 0);
        let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone())).collect();
        for _ in 0..when {
            engine.step(&model).unwrap();
        }
        let gone: Vec<_> = ids.iter().copied().step_by(2).collect();
        let known = gone.iter().filter(|id| engine.cancel(**id)).count();
        assert_eq!(known, gone.len());
        assert!(!engine.cancel(gone[0]), "it is gone already");
        let mut done = vec![];
        while !engine.is_idle() {
            for event in engine.step(&model).unwrap() {
                assert!(!gone.contains(&event.request()), "{event:?}");
                if let Event::Finished { request, response, content, .. } = &event {
                    let at = ids.iter().position(|id| id == request).unwrap();
                    assert_eq!(content.ids, expected[&(at as u64)][*response].ids);
                }
                done.extend(matches!(event, Event::Done { .. }).then_some(event.request()));
            }
        }
        assert_eq!(done.len(), ids.len() - gone.len());
        // All of them: nothing is left to do.
        let all: Vec<_> = requests.iter().map(|r| engine.submit(r.clone())).collect();
        engine.step(&model).unwrap();
        assert!(all.iter().filter(|id| engine.cancel(**id)).count() == all.len());
        assert!(engine.is_idle() && engine.step(&model).unwrap().is_empty());
    }
}

/// A response that is told to end has what was drawn, with all of its numbers; its neighbours go on as they would have.
fn responses_end_where_they_are_told<B: Kernels>() {
    let model = model::<B>();
    let mut requests = random_requests(&model, 2);
    requests.iter_mut().for_each(|r| (r.n, r.limits.max_new_tokens, r.limits.min_new_tokens) = (3, 30, 30));
    let expected = run(&model, &requests, &(0..8).map(|i| (0, i)).collect::<Vec<_>>(), ROOM);
    let mut engine = RolloutEngine::new(EngineConfig { read_every: 3, ..ROOM }, ImageCache::default(), 0);
    let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone())).collect();
    let (mut drawn, mut finished) = (0, 0);
    // Of each request the second response ends after as many tokens as the request's number and one.
    let length = |at: usize, response: usize| if response == 1 { at + 1 } else { 30 };
    while !engine.is_idle() {
        for event in engine.step(&model).unwrap() {
            let at = ids.iter().position(|id| *id == event.request()).unwrap();
            match event {
                Event::Token { request, response, id, .. } => {
                    drawn += 1;
                    // None where this token was the last and the response is finished by the same step.
                    let Some(so_far) = engine.so_far(request, response) else { continue };
                    assert_eq!(so_far.ids.last(), Some(&id));
                    assert!(so_far.ids.len() <= length(at, response), "a token behind the last");
                    if response == 1 && so_far.ids.len() == at + 1 {
                        assert!(engine.end(request, response) && !engine.end(request, response));
                    }
                }
                Event::Finished { response, content, .. } => {
                    finished += 1;
                    let (whole, length) = (&expected[&(at as u64)][response], length(at, response));
                    assert_eq!(content.ids, whole.ids[..length]);
                    assert_eq!(content.finish == FinishReason::Stop, response == 1);
                    assert_eq!(content.log_probs.len(), length);
                    assert!(difference(&content.log_probs, &whole.log_probs[..length]) < 1e-5);
                    assert_eq!(content.visual_focus.map(|f| f.len()), whole.visual_focus.as_ref().map(|_| length));
                }
                Event::Done { .. } => {}
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert_eq!((finished, drawn), (24, 8 * 60 + (1..=8).sum::<usize>()));
    assert_eq!((engine.open_rows(), engine.cached_rows()), (0, 0));
}

fn new_weights_end_what_runs_under_the_old<B: Kernels>() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let mut engine = RolloutEngine::new(EngineConfig { max_batch_rows: 2, ..ROOM }, ImageCache::new(1.0), 3);
    let (first, second) = (request(&model, &prompts[1], 0), request(&model, &prompts[0], 1));
    let expected = run(&model, &[first.clone(), second.clone()], &[(0, 0), (0, 1)], ROOM);
    // The longer prompt enters first; the other waits.
    let (runs, waits) = (engine.submit(first), engine.submit(second));
    engine.step(&model).unwrap();
    assert_eq!((engine.running(), engine.queued()), (1, 1));
    assert!(engine.images().bytes() > 0);
    engine.set_weights(4);
    assert_eq!(engine.images().bytes(), 0, "embeddings of the old weights");
    let mut events = vec![];
    while !engine.is_idle() {
        events.extend(engine.step(&model).unwrap());
    }
    assert_eq!(events[0], Event::Failed { request: runs, error: RequestError::WeightsChanged { from: 3, to: 4 } });
    assert!(events[1..].iter().all(|event| event.request() == waits));
    let finished = events.iter().filter_map(|event| match event {
        Event::Finished { response, content, policy_version, .. } => Some((*response, content, *policy_version)),
        _ => None,
    });
    let mut count = 0;
    for (response, content, version) in finished {
        assert_eq!((&content.ids, version), (&expected[&1][response].ids, 4));
        count += 1;
    }
    assert_eq!(count, 2);
}

/// What is wrong with one request is that request's; empty ones are answered at once.
fn requests_fail_alone<B: Kernels>() {
    let model = model::<B>();
    let prompt = &mixed_prompts(&model)[0];
    let good = request(&model, prompt, 0);
    let vocab = model.config.text.vocab_size;
    let with = |change: &dyn Fn(&mut RolloutRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let bad = [
        (with(&|r| r.prompt.input_ids.clear()), "the prompt is empty"),
        (with(&|r| r.prompt.input_ids = vec![1; 1001]), "1001 tokens"),
        (with(&|r| r.n = 5), "n = 5"),
        (with(&|r| r.limits.max_new_tokens = 41), "max_new_tokens = 41"),
        (with(&|r| r.sampling.temperature = f64::NAN), "temperature = NaN"),
        (with(&|r| r.sampling.temperature = -1.0), "temperature = -1"),
        (with(&|r| r.sampling.top_p = 0.0), "top_p = 0"),
        (with(&|r| r.prompt.input_ids[0] = vocab as u32), "outside the model's vocabulary"),
        (with(&|r| r.prompt.pixel_values = Default::default()), "0 values were given"),
        (with(&|r| r.prompt.image_grid_thw.clear()), "the prompt does not fit the model"),
        (with(&|r| r.limits.suppress = (0..vocab as u32).collect()), "leave no token"),
    ];
    let expected = run(&model, std::slice::from_ref(&good), &[(0, 0)], ROOM);
    let mut engine = RolloutEngine::new(ROOM, ImageCache::default(), 0);
    let bad: Vec<_> = bad.into_iter().map(|(request, why)| (engine.submit(request), why)).collect();
    let none = engine.submit(with(&|r| r.n = 0));
    let empty = engine.submit(with(&|r| r.limits.max_new_tokens = 0));
    let fine = engine.submit(good.clone());
    let (mut failed, mut finished, mut done) = (BTreeMap::new(), vec![], vec![]);
    while !engine.is_idle() {
        for event in engine.step(&model).unwrap() {
            match event {
                Event::Failed { request, error } => assert!(failed.insert(request, error.to_string()).is_none()),
                Event::Finished { request, response, content, .. } => finished.push((request, response, content.ids)),
                Event::Done { request } => done.push(request),
                Event::Token { request, .. } => assert_eq!(request, fine),
            }
        }
    }
    assert_eq!(failed.len(), bad.len());
    for (id, why) in bad {
        assert!(failed[&id].contains(why), "{} instead of {why}", failed[&id]);
    }
    finished.sort();
    let answers = |id, ids: [&[u32]; 2]| ids.map(|ids| (id, ids.to_vec())).into_iter().enumerate();
    let all: Vec<_> = answers(empty, [&[], &[]])
        .chain(answers(fine, [&expected[&0][0].ids, &expected[&0][1].ids]))
        .map(|(response, (id, ids))| (id, response, ids))
        .collect();
    assert_eq!(finished, all);
    assert_eq!(done, [none, empty, fine]);
}

on!(flex, burn_flex::Flex<f32, i32>: company_changes_nothing lengths_and_ends no_end_before_the_minimum vision_tokens_are_never_sampled
    log_probs_and_focus_are_those_of_scoring greedy_is_the_argmax_of_a_full_forward an_interrupt_stops_it
    requests_do_not_notice_one_another cancelled_requests_are_gone responses_end_where_they_are_told new_weights_end_what_runs_under_the_old
    requests_fail_alone);
on!(ndarray, burn_ndarray::NdArray<f32>: company_changes_nothing log_probs_and_focus_are_those_of_scoring);
