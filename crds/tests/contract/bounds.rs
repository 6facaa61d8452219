//! Bounds and grammars of single fields, with the field that each error names. (Tests of the API server's
//! errors are in `tests/tests/api_server/`.)

use std::path::Path;

use rowlock_crds::parse_manifests;

/// The errors of a manifest with this part of a spec, which follows `workers`.
fn errors(spec: &str) -> String {
    let head = "apiVersion: rowlock.dev/v1alpha1\nkind: TaskQueue\nmetadata: { name: emails }\n";
    let text = format!("{head}spec:\n  workers: {{ total: 1 }}\n  {spec}\n");
    match parse_manifests(Path::new("q.yaml"), &text) {
        Ok(_) => String::new(),
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(|error| error.error.to_string()).collect();
            errors.join("\n")
        }
    }
}

fn check(spec: &str, expected: &str) {
    assert_eq!(errors(spec), expected, "{spec}");
}

#[test]
fn a_path_may_have_the_characters_of_a_url_path() {
    let path = |path: &str| format!("handler: {{ http: {{ path: {path:?} }} }}");
    check(&path("/a-b_c~/%20!$&'()*+,;=:@"), "");
    for wrong in ["", "tasks", "/a b", "/a?b", "/a#b", "/a<b", "/ä", "/a\nb", "/a{b}", "/a\\\\b"] {
        let errors = errors(&path(wrong));
        assert!(
            errors.starts_with("spec.handler.http.path: is `")
                && errors.ends_with("write only a path, such as /tasks"),
            "{wrong:?}: {errors}"
        );
    }
    let long = path(&format!("/{}", "a".repeat(1024)));
    check(&long, "spec.handler.http.path: has 1025 characters; use at most 1024");
}

#[test]
fn the_names_and_keys_of_a_secret_follow_kubernetes() {
    let secret =
        |name: &str, key: &str| format!("database: {{ secretRef: {{ name: {name:?}, key: {key:?} }} }}");
    let hint = "write the name of the Secret and the key that holds the URL";
    check(&secret("shop-pg.app", "URI_2.x-y"), "");
    check(&secret("", "uri"), &format!("spec.database.secretRef.name: is empty; {hint}"));
    for wrong in ["Shop", "shop_pg", "-shop", "shop-", "shop..pg", ".shop"] {
        let expected = format!("spec.database.secretRef.name: is `{wrong}`, which is not valid; {hint}");
        check(&secret(wrong, "uri"), &expected);
    }
    for wrong in ["a/b", "a b", "ä"] {
        let expected = format!("spec.database.secretRef.key: is `{wrong}`, which is not valid; {hint}");
        check(&secret("shop", wrong), &expected);
    }
    assert!(errors(&secret(&"a".repeat(254), "uri")).contains("which is not valid"));
}

#[test]
fn a_template_has_one_handler_and_no_worker() {
    let template = |spec: &str| format!("template: {{ spec: {{ {spec} }} }}");
    let field = "spec.template.spec";
    check(
        &template("containers: [{ name: handler }, { name: proxy }], initContainers: [{ name: setup }]"),
        "",
    );
    let none = "has no container `handler`; give this name to the container that runs the tasks";
    check("template: {}", &format!("{field}.containers: {none}"));
    check(&template("containers: [{ name: main }]"), &format!("{field}.containers: {none}"));
    check(
        &template("containers: 5"),
        &format!("{field}.containers: is not a list; write a list of containers\n{field}.containers: {none}"),
    );
    let hint = "give it a unique name";
    check(
        &template("containers: [{ name: handler }, { name: handler }]"),
        &format!("{field}.containers[1]: repeats the name `handler`; {hint}"),
    );
    check(
        &template("containers: [{ name: handler }, { name: worker }]"),
        &format!("{field}.containers[1]: has the name `worker`, which is reserved for Rowlock; {hint}"),
    );
    check(
        &template("containers: [{ name: handler }], initContainers: [{ name: handler }, {}]"),
        &format!(
            "{field}.initContainers[0]: has the name `handler`, which is reserved for Rowlock; {hint}\n\
             {field}.initContainers[1]: has no valid container name; {hint}"
        ),
    );
    let many = vec!["{ name: a }"; 101].join(", ");
    assert!(
        errors(&template(&format!("containers: [{many}]"))).contains("has 101 containers; write at most 100")
    );
}

#[test]
fn lists_are_bounded() {
    let statuses = vec!["404"; 301].join(", ");
    check(
        &format!("retry: {{ final: [{statuses}] }}"),
        "spec.retry.final: has 301 statuses; write each status once",
    );
    let delays = vec!["1s"; 101].join(", ");
    check(
        &format!("retry: {{ backoff: {{ delays: [{delays}] }} }}"),
        "spec.retry.backoff.delays: has 101 delays; write at most 100, or use exponential",
    );
}

#[test]
fn a_duration_is_written_in_at_most_32_characters() {
    check(&format!("timeout: {}1s", "0".repeat(30)), "");
    let long = format!("{}1s", "0".repeat(31));
    let expected =
        format!("spec.timeout: `{long}` has more than 32 characters; write it shorter, such as 1h30m");
    check(&format!("timeout: {long}"), &expected);
}
