//! What an operator reads in the log, and what nobody ever does.

use std::{fs::File, process::Stdio};

use reqwest::StatusCode;

use crate::{harness::token_file, program::*};

const TOKEN: &str = "the operator's own token";

#[tokio::test]
async fn the_log_has_each_request_and_no_secret_and_no_update() {
    let folder = folder_with_task();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    token_file(folder.path(), TOKEN);
    let arguments = ["--store", &path("store"), "--admin-token-file", &path("token")];
    let log = Stdio::from(File::create(path("log")).unwrap());
    let program = Program::start_logging(folder.path(), &arguments, "trace", log);
    let api = program.api();
    let frame = api.take_part(1).await;
    let pause = async |token: &str| {
        let url = format!("{}/v1/admin/tasks/tiny/pause", program.base);
        let request = reqwest::Client::new().post(url).bearer_auth(token);
        request.send().await.unwrap().status()
    };
    for guess in ["a first wrong guess", "a second wrong guess"] {
        assert_eq!(pause(guess).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(pause(TOKEN).await, StatusCode::OK);
    drop(program);
    let log = std::fs::read_to_string(path("log")).unwrap();
    for (route, status) in [
        ("/v1/tasks/{task}/check-in", 200),
        ("/v1/tasks/{task}/updates", 200),
        ("/v1/admin/tasks/{task}/pause", 401),
        ("/v1/admin/tasks/{task}/pause", 200),
    ] {
        let (route, status) = (format!("route=\"{route}\""), format!("status={status}"));
        let has = |line: &&str| line.contains("answered") && line.contains(&route) && line.contains(&status);
        assert!(log.lines().any(|line| has(&line)), "{route} {status}:\n{log}");
    }
    let refusals = log
        .lines()
        .filter(|line| line.contains("without the operator's token"));
    assert_eq!(refusals.count(), 1, "once a minute");
    let ids = [frame.update.to_string(), frame.client.to_string()];
    for secret in [TOKEN, "wrong guess", "Bearer", "UNSU", &ids[0], &ids[1]] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
