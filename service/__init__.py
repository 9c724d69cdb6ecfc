"""The HTTP service: routes, the job record, the artifact store, the queue and the keeper. Free of torch."""
