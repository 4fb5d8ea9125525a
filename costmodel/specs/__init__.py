"""What is asked: frozen specs of models, image rules, hardware, workloads and deployments."""
