//! A reward of one's own: a closure from a response to its score.
use reward::{Request, Reward, Score};

fn main() {
    // Right where the response ends with the answer, and half as much for each tenfold of its length.
    let mut reward = Reward::from_fn(|request: &Request| {
        let accuracy = f64::from(u8::from(request.response.trim_end().ends_with(request.ground_truth)));
        let brevity = 0.5_f64.powf((request.response_length.max(1) as f64).log10());
        Score { overall: accuracy * brevity, accuracy, ..Score::default() }
    });
    let request =
        |response, response_length| Request { response, ground_truth: "7", response_length, id: "sum", row: None };
    let scores = reward.score(&[request("3 + 4 = 7", 10), request("It is 8", 3)]).expect("a closure always answers");
    println!("{:?}", scores.iter().map(|score| score.overall).collect::<Vec<_>>());
    assert_eq!((scores[0].overall, scores[1].overall), (0.5, 0.0));
}
