"""What is installed in OpenSearch, as JSON that an operator can read and PUT by hand."""
