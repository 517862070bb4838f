use std::path::Path;
use std::time::Duration;

use super::*;
use crate::dataset::{FetchState, fetch};
use crate::test_server::{Fault, Server};

/// Three data sets in the form of the API's documentation, with fields that are of no use here, and nulls.
fn answer(server: &Server) -> String {
    let dataset = |number: u32, organism: &str, tissue: &str, disease: &str, cells: u64| {
        serde_json::json!({
            "assay": [{ "label": "10x 3' v3", "ontology_term_id": "EFO:0009922" }],
            "assets": [
                { "filesize": 7, "filetype": "RDS", "url": server.url(&format!("{number}.rds")) },
                { "filesize": 5_000, "filetype": "H5AD", "url": server.url(&format!("{number}.h5ad")) },
            ],
            "batch_condition": null,
            "cell_count": cells,
            "cell_type": [{ "label": "B cell", "ontology_term_id": "CL:0000236" }],
            "citation": "Publication: https://doi.org/10.1000/x",
            "collection_doi": null,
            "collection_id": "00000000-0000-0000-0000-000000000000",
            "collection_name": "A collection",
            "dataset_id": format!("id-{number}"),
            "dataset_version_id": format!("version-{number}"),
            "disease": [{ "label": disease, "ontology_term_id": "PATO:0000461" }],
            "donor_id": ["a", "b"],
            "is_primary_data": [true],
            "mean_genes_per_cell": 1234.5,
            "organism": [{ "label": organism, "ontology_term_id": "NCBITaxon:9606" }],
            "primary_cell_count": cells,
            "published_at": "2024-01-01T00:00:00+00:00",
            "schema_version": "5.2.0",
            "spatial": null,
            "tissue": [{ "label": tissue, "ontology_term_id": "UBERON:0002048", "tissue_type": "tissue" }],
            "title": format!("Data set {number}"),
            "x_approximate_distribution": null,
        })
    };
    let mut third = dataset(3, "Mus musculus", "lung", "normal", 900);
    third["assets"] = serde_json::Value::Null;
    let all = [
        dataset(1, "Homo sapiens", "lung parenchyma", "normal", 100),
        dataset(2, "Homo sapiens", "blood", "influenza", 5_000),
        third,
    ];
    serde_json::to_string(&all).unwrap()
}

fn set_up() -> Server {
    let server = Server::start();
    server.put("curation/v1/datasets", answer(&server));
    server.put("1.h5ad", vec![7; 5_000]);
    server
}

fn quick() -> FetchOptions {
    FetchOptions { retries: 3, pause: Duration::from_millis(1) }
}

fn ids(server: &Server, query: CellxgeneQuery) -> Vec<String> {
    let found = query.run(&server.url("curation/v1/"), &quick()).unwrap();
    found.into_iter().map(|dataset| dataset.dataset_id).collect()
}

#[test]
fn data_sets_are_chosen_by_labels_terms_and_size() {
    let server = set_up();
    let text = |text: &str| Some(text.to_owned());
    let all = CellxgeneQuery::default;
    assert_eq!(ids(&server, all()), ["id-1", "id-2", "id-3"]);
    assert_eq!(ids(&server, CellxgeneQuery { tissue: text("Lung"), ..all() }), ["id-1", "id-3"]);
    assert_eq!(
        ids(&server, CellxgeneQuery { tissue: text("lung"), organism: text("homo sapiens"), ..all() }),
        ["id-1"]
    );
    assert_eq!(
        ids(&server, CellxgeneQuery { tissue: text("uberon:0002048"), limit: Some(1), ..all() }),
        ["id-1"]
    );
    assert_eq!(ids(&server, CellxgeneQuery { tissue: text("UBERON"), ..all() }), [""; 0]);
    assert_eq!(ids(&server, CellxgeneQuery { disease: text("influenza"), ..all() }), ["id-2"]);
    assert_eq!(ids(&server, CellxgeneQuery { assay: text("smart-seq"), ..all() }), [""; 0]);
    assert_eq!(
        ids(&server, CellxgeneQuery { min_cells: Some(101), max_cells: Some(4_999), ..all() }),
        ["id-3"]
    );
}

#[test]
fn the_h5ad_of_a_data_set_is_fetched_under_the_name_of_its_version() {
    let server = set_up();
    let folder = tempfile::tempdir().unwrap();
    let found = CellxgeneQuery::default().run(&server.url("curation/v1"), &quick()).unwrap();
    let fetched = fetch(&found[0].manifest().unwrap(), folder.path(), &quick(), &mut |_| {}).unwrap();
    assert_eq!(fetched[0].path, folder.path().join("version-1.h5ad"));
    assert_eq!((fetched[0].bytes, fetched[0].state), (5_000, FetchState::Downloaded));
    assert!(matches!(found[2].manifest(), Err(Error::Transfer { .. })), "it has no H5AD");
    for (id, url) in [("../x", "http://x/y"), ("x", "file:///etc/passwd")] {
        let mut hostile = found[0].clone();
        hostile.dataset_version_id = id.to_owned();
        hostile.assets[1].url = url.to_owned();
        assert!(hostile.manifest().is_err(), "{id} {url}");
    }
    assert!(!Path::new("x.h5ad").exists());
}

#[test]
fn a_server_that_hesitates_is_asked_again_and_one_that_talks_nonsense_is_reported() {
    let server = set_up();
    server.fail([Fault::Status(503), Fault::CutAfter(100), Fault::Status(502)]);
    assert_eq!(ids(&server, CellxgeneQuery::default()).len(), 3);
    let failure = |api: &str| match CellxgeneQuery::default().run(&server.url(api), &quick()) {
        Err(Error::Transfer { failure, .. }) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure("elsewhere"), TransferFailure::NotFound);
    server.put("curation/v1/datasets", "<html>");
    assert!(matches!(failure("curation/v1"), TransferFailure::BadAnswer { .. }));
    server.always("curation", Fault::Status(503));
    assert_eq!(failure("curation/v1"), TransferFailure::Status { status: 503 });
}
