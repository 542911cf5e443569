"""What a container, a load balancer and a cluster ask of a server: is it well, let it run empty, show its metrics."""
