# What mclust makes of the embeddings of make_embeddings.py, for the tests of `mixture` to compare with.
#
# Run (writes mixture.json beside this script): apt-get install r-base-core r-cran-mclust; Rscript make_mixture.R
# Made with mclust 6.0.0 on R 4.2.2.

suppressMessages(library(mclust))
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
shapes <- list(
  dlpfc_151510 = c(4634, 10), starmap = c(1049, 30), baron_h1 = c(1937, 15), random = c(300, 5), separated = c(400, 4)
)
components <- list(dlpfc_151510 = 7, starmap = 4, baron_h1 = c(6, 14), random = 3, separated = 1:8)

quoted <- function(x) sprintf("\"%s\"", x)
letters_of <- function(partition) {
  # Groups numbered by their first cell, one character a cell.
  paste(c(0:9, letters)[match(partition, unique(partition))], collapse = "")
}

read <- function(name) {
  shape <- shapes[[name]]
  values <- readBin(file.path(here, paste0(name, ".i16")), "integer", prod(shape), size = 2, endian = "little")
  matrix(as.double(values), shape[1], shape[2], byrow = TRUE)
}

entries <- sapply(names(shapes), function(name) {
  values <- read(name)
  started <- proc.time()[["elapsed"]]
  # All cells, not a random subset.
  tree <- hc(values, modelName = "VVV", use = "SVD")
  cat(name, "tree", proc.time()[["elapsed"]] - started, "s\n")
  fits <- sapply(components[[name]], function(k) {
    start <- hclass(tree, k)
    fit <- Mclust(values, G = k, modelNames = "EEE", initialization = list(hcPairs = tree), verbose = FALSE)
    exact <- me(values, "EEE", z = unmap(start), control = emControl(tol = c(1e-13, 1e-13)))
    cat(name, k, fit$loglik, exact$loglik, attr(exact, "info")[["iterations"]], "\n")
    sprintf(
      "{\"n_components\":%d,\"start\":%s,\"log_likelihood\":%.10f,\"bic\":%.10f,\"labels\":%s,\"converged_log_likelihood\":%.10f}",
      k, quoted(letters_of(start)), fit$loglik, fit$bic, quoted(letters_of(fit$classification)), exact$loglik
    )
  })
  sprintf(
    "%s:{\"n_cells\":%d,\"n_features\":%d,\"fits\":[%s]}",
    quoted(name), shapes[[name]][1], shapes[[name]][2], paste(fits, collapse = ",")
  )
})
writeLines(paste0("{", paste(entries, collapse = ",\n"), "}"), file.path(here, "mixture.json"))
