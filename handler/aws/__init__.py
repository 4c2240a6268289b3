"""What all users of AWS share: clients with timeouts, outages, stored numbers and fields, and CloudWatch metrics."""
